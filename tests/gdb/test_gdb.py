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
        self.assertRegex(output, r'(?m)^node bottom \(null-co\)')

        at = lines.index('node top: 1 in flight')
        self.assertEqual(lines[at + 1], '    65536 +4096 shared')
        self.assertIn('node bottom: 1 in flight', lines)

        self.assertEqual(output.count('yielded, created for wait_outside()'), 2, everything)
        self.assertRegex(output, r'(?s)created for wait_outside\(\)\n'
                                 r'(    #\d+ [^\n]*\n)*'
                                 r'    #\d+ wait_inside \(\) at [^\n]*gdb-target\.c:\d+\n'
                                 r'    #\d+ wait_outside \(\) at [^\n]*gdb-target\.c:\d+\n')
        # The read: from its coroutine's entry down to the driver's sleep.
        self.assertRegex(output, r'    #\d+ co_sleep_ns \(\)')
        self.assertRegex(lines[-1], r'^\d+ coroutines$')

    def test_the_live_program_and_its_core_file_show_the_same(self):
        folder = tempfile.mkdtemp(prefix='blockgraph-gdb-')
        self.addCleanup(shutil.rmtree, folder)
        core = os.path.join(folder, 'core')
        live = gdb(PROGRAM, commands=['break everything_is_waiting', 'run',
                                      f'generate-core-file {core}', *COMMANDS, 'kill'])
        self.check(live[0].split('\n[Inferior 1')[0], live[1])
        dead = gdb(PROGRAM, core, commands=COMMANDS)
        self.check(dead[0].rstrip(), dead[1])


if __name__ == '__main__':
    PROGRAM = sys.argv.pop(1)
    unittest.main(verbosity=2)
