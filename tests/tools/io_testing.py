# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs blockgraph-io and qemu-io side by side, each in a folder of its own.

What takes time, and what each says of its commands in words of its own, is masked.
"""
import os
import re
import subprocess

import harness

MASKS = [
    # How long it took, for people and for programs.
    (r'(?<=ops; )[0-9:.]+( sec)? \(\S+ \S+/sec and \S+ ops/sec\)', 'T'),
    (r'^(\d+,1),0:00:00\.\d\d,[\d.]+,[\d.]+$', r'\1,T'),
    # What a command does, and how the program is used.
    (r'^(?!Parsing)(\w+( .*?)?) -- [a-z].*$', r'\1 -- ...'),
    (r'Usage: .*', 'Usage'),
    (r'#block\d+', '#block'),
    (r'^\S*/qemu-io(?=: )', 'qemu-io'),
]


def mask(text):
    for pattern, by in MASKS:
        flags = re.MULTILINE | (re.DOTALL if pattern.startswith('Usage') else 0)
        text = re.sub(pattern, by, text, flags=flags)
    return text


class IoTest(harness.ToolTest):
    """Folders "mine" and "theirs" that hold the same images."""

    folders = ('mine', 'theirs')

    def setUp(self):
        super().setUp()
        for folder in self.folders:
            os.mkdir(self.path(folder))
        link = self.path('.bin/qemu-io')
        os.symlink(harness.ours('blockgraph-io'), link)
        self.as_qemu_io = link

    def need_io(self):
        self.need_reference_text()
        if harness.reference_io() is None:
            self.skipTest('no qemu-io')

    def put(self, name, data=b'', size=None):
        """A file in both folders."""
        for folder in self.folders:
            self.write(os.path.join(folder, name), data, size)

    def image(self, name, *args):
        """An image in both folders, made by the reference."""
        for folder in self.folders:
            self.make('create', '-q', '-f', 'qcow2', *args, name, '1M', cwd=self.path(folder))

    def run_io(self, program, args, folder, stdin=None):
        done = subprocess.run([program, *args], cwd=self.path(folder), input=stdin or b'',
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              timeout=harness.TIMEOUT)
        return harness.Result(done.returncode, done.stdout.decode('utf-8', 'surrogateescape'),
                              done.stderr.decode('utf-8', 'surrogateescape'))

    def mine(self, *args, stdin=None):
        return self.run_io(self.as_qemu_io, args, 'mine', stdin)

    def theirs(self, *args, stdin=None):
        return self.run_io(harness.reference_io(), args, 'theirs', stdin)

    def same(self, *args, stdin=None, unordered=False):
        """Both print the same and end with the same exit code; returns ours."""
        self.need_io()
        mine, theirs = self.mine(*args, stdin=stdin), self.theirs(*args, stdin=stdin)
        for one, other in ((mine.out, theirs.out), (mine.err, theirs.err)):
            one, other = mask(one), mask(other)
            if unordered:
                one, other = sorted(one.splitlines()), sorted(other.splitlines())
            self.assertEqual(one, other, args)
        self.assertEqual(mine.status, theirs.status, (args, mine, theirs))
        return mine

    def commands(self, options, image, *commands, **more):
        """The commands in one run."""
        words = sum((['-c', command] for command in commands), [])
        return self.same(*options, *words, image, **more)

    def each(self, options, image, *commands):
        """Each command in a run of its own."""
        for command in commands:
            with self.subTest(command=command):
                self.commands(options, image, command)

    def assert_equal_files(self, name):
        self.assertTrue(self.read('mine/' + name) == self.read('theirs/' + name), name)

    def assert_equal_disks(self, name, image_format='qcow2'):
        """The images are sound, and hold the same."""
        for folder in self.folders:
            self.make('check', '-q', '-f', image_format, name, cwd=self.path(folder))
        self.make('compare', '-q', '-f', image_format, '-F', image_format,
                  'mine/' + name, 'theirs/' + name)
