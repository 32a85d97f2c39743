#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""test_gdb.py PROGRAM: the gdb commands show what tests/gdb/gdb-target.c does,
in the live program and in its core file."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
SCRIPT = os.path.join(TOP, 'tools', 'gdb', 'blockgraph-gdb.py')
PROGRAM = None
COMMANDS = ['blockgraph graph', 'blockgraph requests', 'blockgraph coroutines']


def gdb(*arguments, commands):
    line = ['gdb', '-q', '-nx', '-batch', '-x', SCRIPT]
    for command in commands:
        line += ['-ex', command]
    done = subprocess.run(line + list(arguments), capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=60)
    return done.stdout, done.stdout + done.stderr


class Gdb(unittest.TestCase):
    def check(self, output, everything):
        lines = output.splitlines()
        self.assertNotIn('Python Exception', everything, everything)
        self.assertNotIn('Error', everything, everything)

        top = [i for i, line in enumerate(lines) if line.startswith('node top (raw)')]
        self.assertEqual(len(top), 1, everything)
        self.assertRegex(lines[top[0]], '1048576 bytes')
        self.assertRegex(lines[top[0] + 1], '^    file -> bottom: takes .*consistent read')
        self.assertRegex(output, r'(?m)^node bottom \(stuck\)')

        self.assertRegex(output, r'(?m)^backend 0x[0-9a-f]+: 2 in flight$')
        self.assertRegex(output, r'(?m)^    \w*read\w*\(\) 65536 \+4096, coroutine 0x')
        self.assertRegex(output, r'(?m)^    \w*write\w*\(\) 131072 \+4096, coroutine 0x')
        at = [i for i, line in enumerate(lines) if line.startswith('node bottom: ')]
        self.assertEqual(lines[at[0] + 1], '    claim 131072 +4096 shared', everything)

        self.assertEqual(output.count('yielded, created for wait_outside()'), 2, everything)
        self.assertRegex(output, r'(?s)created for wait_outside\(\)\n'
                                 r'(    #\d+ [^\n]*\n)*'
                                 r'    #\d+ wait_inside \(\) at [^\n]*gdb-target\.c:\d+\n'
                                 r'    #\d+ wait_outside \(\) at [^\n]*gdb-target\.c:\d+\n')
        # A request's stack goes down to the driver.
        for function in 'stuck_preadv', 'stuck_pwritev':
            self.assertRegex(output, rf'    #\d+ {function} \(\) at .*gdb-target\.c')
        self.assertRegex(output, r'(?m)^\d+ coroutines$')

    def test_the_live_program_and_its_core_file_show_the_same(self):
        folder = tempfile.mkdtemp(prefix='blockgraph-gdb-')
        self.addCleanup(shutil.rmtree, folder)
        core = os.path.join(folder, 'core')
        live = gdb(PROGRAM, commands=['break everything_is_waiting', 'run',
                                      f'generate-core-file {core}', *COMMANDS, 'kill'])
        self.check(*live)
        dead = gdb(PROGRAM, core, commands=COMMANDS)
        self.check(*dead)


if __name__ == '__main__':
    PROGRAM = sys.argv.pop(1)
    unittest.main(verbosity=2)
