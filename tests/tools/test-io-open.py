#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io: the program's options, open, close and reopen, side by side with QEMU's."""
import ctypes
import errno
import os
import platform
import re
import struct
import subprocess

import harness
from io_testing import IoTest

RAW = ['-f', 'raw']
QCOW2 = ['-f', 'qcow2']
FCNTL = {'x86_64': 72, 'aarch64': 25}.get(platform.machine())


def without_locks():
    """From now on the kernel refuses F_OFD_GETLK and F_OFD_SETLK, like some file systems."""
    load, equal, leave = 0x20, 0x15, 0x06
    program = ((load, 0, 0, 0), (equal, 0, 4, FCNTL), (load, 0, 0, 24), (equal, 1, 0, 36),
               (equal, 0, 1, 37), (leave, 0, 0, 0x50000 | errno.EINVAL), (leave, 0, 0, 0x7fff0000))
    code = b''.join(struct.pack('=HBBI', *line) for line in program)
    memory = ctypes.create_string_buffer(code)
    libc = ctypes.CDLL(None, use_errno=True)
    filters = struct.pack('@HP', len(program), ctypes.addressof(memory))
    for args in ((38, 1, 0, 0, 0), (22, 2, filters, 0, 0)): # no new privileges, seccomp
        if libc.prctl(*args) != 0:
            raise OSError(ctypes.get_errno(), 'prctl')


class Open(IoTest):
    def setUp(self):
        super().setUp()
        self.put('a.raw', b'\1' * 5000, size=1 << 20)

    def test_a_file_system_without_locks(self):
        if FCNTL is None:
            self.skipTest('the number of fcntl is not known')
        for more, status in (('', 0), ('file.locking=auto,', 0), ('file.locking=off,', 0),
                             ('file.locking=on,', 1)):
            try:
                done = subprocess.run([self.as_qemu_io, '--image-opts', '-c', 'write -q 0 512',
                                       'driver=raw,%sfile.driver=file,file.filename=a.raw' % more],
                                      cwd=self.path('mine'), stdout=subprocess.PIPE, check=False,
                                      stderr=subprocess.PIPE, preexec_fn=without_locks)
            except subprocess.SubprocessError:
                self.skipTest('no seccomp')
            self.assertEqual((done.returncode, done.stdout), (status, b''), (more, done))
            self.assertEqual(b'Failed to lock byte' in done.stderr, status == 1, (more, done))
        self.assertEqual(self.read(os.path.join('mine', 'a.raw'))[:512], b'\xcd' * 512)

    def test_program_options(self):
        for args in (
                ['-r', '-c', 'length', 'a.raw'], ['-c', 'length', 'a.raw'],
                ['-c', 'write 0 512', 'a.raw'], ['none'], [*RAW, 'none'], ['-f', 'none', 'a.raw'],
                [*RAW, 'a.raw', 'b.raw'], ['-x', 'a.raw'], ['--none', 'a.raw'], ['-c'],
                ['-h'], [*RAW, '--cmd', 'length', '--cmd=l', 'a.raw'],
                ['--image-opts', *RAW, '-c', 'length', 'driver=raw,file.filename=a.raw'],
                ['--image-opts', '-c', 'length', 'driver=raw,file.filename=a.raw'],
                ['--image-opts', '-c', 'length', 'none=3'],
                ['-c', 'l', 'json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}}'],
                [*RAW, '-t', 'none-such', '-c', 'length', 'a.raw'],
                [*RAW, '-d', 'none-such', '-c', 'length', 'a.raw'],
                [*RAW, '-i', 'none-such', '-c', 'length', 'a.raw'],
                [*RAW, '-k', '-c', 'length', 'a.raw'], [*RAW, '-kn', '-c', 'length', 'a.raw'],
                [*RAW, '-i', 'native', '-c', 'length', 'a.raw'],
                [*RAW, '-i', 'threads', '-c', 'read -P 1 0 5000', 'a.raw'],
                [*RAW, '-Cr', '-c', 'length', 'a.raw'], [*RAW, '-U', '-c', 'length', 'a.raw'],
                [*RAW, '-rU', '-c', 'length', 'a.raw'],
                ['--object', 'secret,id=a,data=x', *RAW, '-c', 'length', 'a.raw'],
                ['--object', 'none,id=a', *RAW, '-c', 'length', 'a.raw'],
                ['--object', 'secret,data=x', *RAW, '-c', 'length', 'a.raw']):
            with self.subTest(args=args):
                self.same(*args)

    def test_the_version_is_one_that_scripts_know(self):
        for flag in ('-V', '--version'):
            result = self.mine(flag, '-c', 'help')
            self.assertEqual((result.status, result.err), (0, ''))
            self.assertRegex(result.out, r'^qemu-io version 10\.0\.0 \(libblockgraph [\d.]+\)\n$')

    def test_open_and_close(self):
        self.same('-c', 'length', '-c', 'close', '-c', 'read', '-c', 'reopen -r',
                  '-c', 'open', '-c', 'open a b', '-c', 'open -x a', '-c', 'open none',
                  '-c', 'open -t none-such a.raw', '-c', 'open -d none-such a.raw',
                  '-c', 'open -i none-such a.raw', '-c', 'open -k a.raw', '-c', 'open -U a.raw',
                  '-c', 'open -o driver=none a.raw', '-c', 'open -o driver=raw,none=1 a.raw',
                  '-c', 'open -o driver=raw a.raw', '-c', 'length', '-c', 'open a.raw',
                  '-c', 'close', '-c', 'close 3', '-c', 'l',
                  '-c', 'o -r -o driver=raw,file.filename=a.raw', '-c', 'write 0 512', '-c', 'c',
                  '-c', 'open -t none -d unmap -o driver=raw a.raw', '-c', 'write 0 512',
                  '-c', 'close', '-c', 'open -o driver=raw,file.filename=a.raw a.raw',
                  '-c', 'open -o driver=raw -n -k a.raw', '-c', 'close',
                  '-c', 'open -i threads -rU a.raw', '-c', 'close', '-c', 'open a.raw')
        self.assert_equal_files('a.raw')

    def test_snapshot(self):
        before = self.read('mine/a.raw')
        for args in ([*RAW, '-s', 'a.raw'], [*RAW, '-s', '-t', 'none', 'a.raw']):
            self.same('-c', 'read -P 1 0 512', '-c', 'write -P 7 0 512', '-c', 'read -P 7 0 512',
                      '-c', 'read -P 1 512 512', '-c', 'map', '-c', 'info', '-c', 'length', *args)
        self.same('-c', 'write 0 512', '-c', 'read -P 1 0 512', '-c', 'info', *RAW, '-rs', 'a.raw')
        self.same('-c', 'open -s -o driver=raw a.raw', '-c', 'write -z 0 1M', '-c', 'map',
                  '-c', 'close', '-c', 'open -o driver=raw a.raw', '-c', 'read -P 1 0 5000')
        self.same('-c', 'length', *RAW, '-s', 'none')
        self.assertTrue(self.read('mine/a.raw') == before)

    def test_reopen(self):
        self.commands(RAW, 'a.raw', 'reopen', 'reopen -r', 'write 0 512', 'reopen -w',
                      'write 0 512', 'reopen -c none', 'write 1 512', 'reopen -c none-such',
                      'reopen -c writethrough', 'write 5k 512', 'reopen -c unsafe', 'reopen -rw',
                      'reopen -r -r', 'reopen -r -o read-only=on',
                      'reopen -c none -o cache.direct=on', 'reopen x', 'reopen -x',
                      'reopen -o cache.no-flush=off', 'reopen -o driver=raw', 'read 0 512',
                      'truncate 2M', 'reopen -r', 'truncate 3M', 'length')
        self.commands([*RAW, '-r'], 'a.raw', 'write 0 512', 'reopen -w', 'write -P 3 0 512')
        self.commands([*RAW, '-r'], 'a.raw', 'reopen -o read-only=off', 'write -P 4 9 512')
        self.assert_equal_files('a.raw')

    def test_reopen_changes_what_qcow2_takes_while_it_runs(self):
        self.image('a.qcow2')
        writes = ['write -P 5 0 200k', 'write -P 6 700k 1k', 'read -P 5 0 200k',
                  'discard 64k 64k', 'read -P 6 700k 1k']
        for option in ('l2-cache-size=1M', 'l2-cache-size=64k,l2-cache-entry-size=512',
                       'cache-size=2M', 'refcount-cache-size=1M', 'cache-clean-interval=5',
                       'cache-clean-interval=0', 'lazy-refcounts=on', 'lazy-refcounts=off',
                       'pass-discard-request=on', 'pass-discard-request=off',
                       'pass-discard-snapshot=off', 'pass-discard-other=on',
                       'discard-no-unref=on', 'overlap-check=none', 'overlap-check=all',
                       'overlap-check.template=cached', 'overlap-check.main-header=off',
                       'cache-size=1M,l2-cache-size=2M', 'l2-cache-entry-size=500',
                       'cache-size=1M,l2-cache-size=512k,refcount-cache-size=512k'):
            with self.subTest(option=option):
                self.commands(QCOW2, 'a.qcow2', *writes, f'reopen -o {option}', *writes,
                              'reopen -r', f'reopen -o {option}', 'reopen -w', *writes)
                self.commands([*QCOW2, '-r'], 'a.qcow2', f'reopen -o {option}',
                              'read -P 6 700k 1k', f'reopen -w -o {option}', *writes)
        self.assert_equal_disks('a.qcow2')

    def test_reopen_adds_to_the_options_given_before(self):
        # QEMU does not see that these two do not go together.
        self.image('a.qcow2')
        result = self.mine(*QCOW2, '-c', 'reopen -o cache-size=1M', '-c',
                           'reopen -o l2-cache-size=2M', '-c', 'reopen -o l2-cache-size=512k',
                           'a.qcow2')
        self.assertEqual(result.err, 'qemu-io: l2-cache-size may not exceed cache-size\n')

    def test_reopen_keeps_what_was_written_with_lazy_refcounts(self):
        self.image('a.qcow2')
        words = ['-c', 'reopen -o lazy-refcounts=on', '-c', 'write -P 7 0 64k', '-c', 'flush',
                 '-c', 'reopen -o lazy-refcounts=off', '-c', 'abort', *QCOW2, 'a.qcow2']
        before = ['-c', 'reopen -o lazy-refcounts=on', '-c', 'write -P 7 0 64k', '-c', 'flush',
                  '-c', 'abort', *QCOW2, 'a.qcow2']
        for args, dirty in ((before, 1), (words, 0)):
            self.mine(*args)
            self.assertEqual(self.read('mine/a.qcow2')[79], dirty)
            self.mine(*QCOW2, '-c', 'write 0 512', 'a.qcow2')

    def test_reopen_says_which_node_it_is_about(self):
        # QEMU's message ends behind the option's name.
        self.need_io()
        self.image('a.qcow2')
        for options, name in ((RAW, 'a.raw'), (QCOW2, 'a.qcow2')):
            words = [*options, '-c', 'reopen -o none=3', '-c', 'read -q 0 512', name]
            mine, theirs = self.mine(*words), self.theirs(*words)
            self.assertEqual((mine.status, re.sub(' of node .*', '', mine.err), mine.out),
                             (theirs.status, theirs.err, theirs.out))

    def test_traces(self):
        result = self.mine('-T', 'help')
        self.assertEqual((result.status, result.err), (0, ''))
        self.assertIn('\n', result.out)
        event = result.out.split('\n', 1)[0]
        result = self.mine('-T', event, *RAW, '-c', 'length', 'a.raw')
        self.assertEqual((result.status, result.out), (0, '1 MiB\n'))


if __name__ == '__main__':
    harness.main()
