# test_scenarios_table.py - docs/scenarios.md has every row, and each test that it names exists.
# SPDX-License-Identifier: Apache-2.0
import os
import re
import unittest
from pathlib import Path

ROOT = Path(os.environ.get('QUIRE_SOURCE_DIR', Path(__file__).parents[2]))


def numbered(letters, last):
    return [f'{letters}{i}' for i in range(1, last + 1)]


# The rows of the list, in its order. It is no part of the repository.
ROWS = (['P1', 'P1b', 'P1c', 'P1d', 'P1e'] + numbered('P', 25)[1:] + numbered('H', 14) +
        numbered('S', 12) + numbered('U', 15) + numbered('PP', 3))


def table():
    """Row, tests, remark of every line of the tables."""
    text = (ROOT / 'docs/scenarios.md').read_text()
    found = re.findall(r'^\| ([A-Z]+\d+[a-z]?) \| ([^|]+) \| ([^|]+) \|$', text, flags=re.M)
    return [(row, re.findall(r'\w{2,}', tests), remark.strip()) for row, tests, remark in found]


class Table(unittest.TestCase):
    sources = {path.name: path.read_text() for path in (ROOT / 'tests/cache').glob('*.c')}

    def test_every_row_is_there_once(self):
        self.assertEqual([row for row, _, _ in table()], ROWS)

    def test_a_row_has_a_test_or_a_reason(self):
        for row, tests, remark in table():
            with self.subTest(row=row):
                if tests:
                    self.assertRegex(remark, r'^(same|stronger: .+|other: .+|same[;:,] .+)$')
                else:
                    self.assertRegex(remark, r'^out of scope: .+')

    def test_named_tests_exist_and_run(self):
        for row, tests, _ in table():
            for name in tests:
                with self.subTest(row=row, name=name):
                    homes = [text for text in self.sources.values()
                             if f'static void {name}(void **state)\n{{' in text]
                    self.assertEqual(len(homes), 1)
                    self.assertIn(f'QT_TEST({name},', homes[0])
                    before = homes[0].split(f'static void {name}(')[0]
                    comment = before[before.rindex('/*'):]
                    self.assertRegex(comment, rf'V-{row}\b')

    def test_names_carry_the_row(self):
        named = {name: row for row, tests, _ in table() for name in tests}
        for text in self.sources.values():
            for name in re.findall(r'static void (test_v_\w+)\(', text):
                with self.subTest(name=name):
                    self.assertIn(name, named)
                    row = name.split('_')[2]
                    self.assertIn(row.lower(), [r.lower() for r, tests, _ in table()
                                                if name in tests])


if __name__ == '__main__':
    unittest.main()
