#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test runner counts what happened: failures, time-outs, and skips of every kind."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def record(name, result, output=''):
    return {'name': f'libblockgraph:unit / {name}', 'result': result, 'returncode': 0,
            'stdout': output}


class Count(unittest.TestCase):
    def count(self, *records):
        with tempfile.NamedTemporaryFile('w', suffix='.json') as log:
            log.write(''.join(json.dumps(r) + '\n' for r in records))
            log.flush()
            done = subprocess.run([sys.executable, os.path.join(HERE, 'count.py'), 'plain',
                                   log.name], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def test_each_result_is_passed_failed_or_skipped(self):
        self.assertEqual(
            self.count(*(record(r.lower(), r) for r in (
                'OK', 'FAIL', 'TIMEOUT', 'ERROR', 'INTERRUPT', 'SKIP', 'UNEXPECTEDPASS'))),
            ['pass plain/ok', 'fail plain/fail fail, exit code 0',
             'fail plain/timeout timeout, exit code 0', 'fail plain/error error, exit code 0',
             'fail plain/interrupt interrupt, exit code 0', 'skip plain/skip',
             'fail plain/unexpectedpass unexpectedpass, exit code 0'])

    def test_parts_that_were_skipped_in_a_passed_test_are_told_of_once(self):
        cmocka = ('[ RUN      ] works\n[       OK ] works\n[  SKIPPED ] part\n'
                  '[  SKIPPED ] 1 test(s), listed below:\n[  SKIPPED ] part\n')
        python = "test_x (__main__.A.test_x) ... skipped 'why'\ntest_y (__main__.A) ... ok\n"
        self.assertEqual(self.count(record('a', 'OK', cmocka), record('b', 'OK', python)),
                         ['pass plain/a', 'skip plain/a:part', 'pass plain/b',
                          'skip plain/b:test_x'])

    def test_no_test_at_all_is_a_failure(self):
        self.assertEqual(self.count(), ['fail plain/tests no test ran'])


class Summary(unittest.TestCase):
    def summary(self, outcomes, skips, complete='true', ci='true'):
        with tempfile.TemporaryDirectory() as top:
            os.mkdir(os.path.join(top, 'tests'))
            with open(os.path.join(top, 'tests', 'skips.txt'), 'w', encoding='utf-8') as f:
                f.write(skips)
            results = os.path.join(top, 'results')
            with open(results, 'w', encoding='utf-8') as f:
                f.write(outcomes)
            done = subprocess.run(['bash', '-c', f'source {HERE}/phases.sh; judge_skips; '
                                   'print_summary'], capture_output=True, text=True, check=False,
                                  env=dict(os.environ, CI=ci, top=top, results=results,
                                           complete=complete))
        self.assertEqual(done.stderr, '')
        return done.returncode, done.stdout.splitlines()[-1]

    def test_all_passed(self):
        self.assertEqual(self.summary('pass plain/a\npass plain/b\n', ''),
                         (0, '2 passed, 0 failed'))

    def test_a_failure_is_the_exit_status(self):
        self.assertEqual(self.summary('pass plain/a\nfail plain/b\n', ''),
                         (1, '1 passed, 1 failed'))

    def test_a_skip_that_is_not_listed_fails_in_ci_only(self):
        self.assertEqual(self.summary('skip plain/a:b\n', ''), (1, '0 passed, 1 failed, 1 skipped'))
        self.assertEqual(self.summary('skip plain/a:b\n', '', ci=''),
                         (0, '0 passed, 0 failed, 1 skipped'))

    def test_a_skip_that_is_listed_does_not_fail(self):
        self.assertEqual(self.summary('skip plain/a:b\n', '# why\n*/a:b because\n'),
                         (0, '0 passed, 0 failed, 1 skipped'))

    def test_an_entry_that_nothing_needs_fails_a_complete_run(self):
        self.assertEqual(self.summary('pass plain/a\n', 'plain/a because\n'),
                         (1, '1 passed, 1 failed'))
        self.assertEqual(self.summary('pass plain/a\n', 'plain/a because\n', complete='false'),
                         (0, '1 passed, 0 failed'))


if __name__ == '__main__':
    unittest.main()
