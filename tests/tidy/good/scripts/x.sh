#!/usr/bin/env bash
# x.sh - a sample.
# SPDX-License-Identifier: Apache-2.0
echo "TODOS"
