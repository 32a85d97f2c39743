#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io: read, readv, write and writev, side by side with QEMU's."""
import os

import harness
from io_testing import IoTest

RAW = ['-f', 'raw']
QCOW2 = ['-f', 'qcow2']


class ReadWrite(IoTest):
    def setUp(self):
        super().setUp()
        self.put('a.raw', bytes(range(256)) * 4, size=1 << 20)

    def test_reports_of_what_worked(self):
        self.commands(RAW, 'a.raw', 'read 0 512', 'read -q 0 512', 'read -C 0 512',
                      'read -Cq 0 512', 'read -p 0 1', 'read -r 0 4k', 'r 1k 1.5k', 'read 0 0',
                      'read 0x10 010', 'read +0 1b', 'read 1 1M', 'readv 0 512 1k',
                      'readv -C 0 1k 3', 'readv 0 0', 'write 0 513', 'write -C 0 512',
                      'write -q 0 512', 'w -P 1 1 3', 'write -z 1 3', 'write -zu 0 4k',
                      'write -zn 0 4k', 'write -f 0 4k', 'write -zf 0 4k', 'write 0 0',
                      'write -cz 0 512', 'writev 0 1k 1k', 'writev -fqr 0 1k 1k',
                      'writev -C -P 3 5 1k')
        self.assert_equal_files('a.raw')

    def test_what_is_shown(self):
        self.commands(RAW, 'a.raw', 'read -v 0 40', 'read -v 500 40', 'readv -v 0 3 5 100',
                      'read -qv 0 16', 'read -v 7 1', 'read -v 0 0')
        self.same('--image-opts', '-c', 'read -v 4294967296 16',
                  'driver=null-co,size=5G,read-zeroes=on')

    def test_patterns(self):
        self.put('b.raw', b'\5' * 1000 + b'\6' * 24)
        self.commands(RAW, 'b.raw', 'read -P 5 0 1000', 'read -P 5 -s 10 -l 20 0 1k',
                      'read -P 6 -s 1000 0 1k', 'read -P 6 -s 1000 -l 24 0 1k',
                      'readv -P 0x5 0 100 900', 'read -P 05 -l 1000 0 1k')
        self.each(RAW, 'b.raw', 'read -P 5 0 1001', 'read -P 5 -s 10 0 1k',
                  'read -P 6 -s 999 -l 1 0 1k', 'readv -P 5 0 1000 24', 'read -qP 6 0 1')

    def test_what_is_written(self):
        self.put('pattern', b'abc')
        self.commands(RAW, 'a.raw', 'write -P 7 100 1000', 'write -s pattern 5000 1000',
                      'write -s pattern 7000 2', 'write 10k 10k', 'write -z 12k 3000',
                      'write -u -z 40k 4k', 'writev -P 0xff 99k 1 2 3 4 5', 'write -P 0 0 77')
        self.assert_equal_files('a.raw')

    def test_arguments_that_are_wrong(self):
        self.put('empty')
        self.commands(
            RAW, 'a.raw', 'read', 'read 0', 'read x 1', 'read 0 x', 'read 0 1 2', 'read -x 0 1',
            'read -1 5', 'read -- -1 5', 'read 0 9E', 'read 0 3G', 'read 9E 1', 'read -P',
            'read -P zz 0 1', 'read -P 256 0 1', 'read -P -1 0 1', 'read -s 3 0 512',
            'read -l 3 0 512', 'read -P 1 -l x 0 5', 'read -P 1 -s x 0 5', 'read 0 1kB',
            'read -P 1 -s 513 0 512', 'read -P 1 -l 513 0 512', 'read -P 1 -s 256 -l 512 0 512',
            'readv 0', 'readv 0 x', 'readv x 0', 'readv 0 512 9E', 'readv 0 3G', 'readv 0 1G 1G',
            'readv -P 999 0 1', 'readv -s 1 0 1', 'write 0', 'write x 3', 'write 3 x',
            'write -z 0 9E', 'write 0 3G', 'write -z 0 3G', 'write -n 0 3G', 'write -u 0 1',
            'write -zP 3 0 1', 'write -s empty -P 3 0 1', 'write -s empty -z 0 1',
            'write -s empty 0 1', 'write -s none 0 1', 'write -bz 0 512', 'write -bf 0 512',
            'write -cf 0 512', 'write -c 0 100', 'write -c 100 512', 'write -P 300 0 1',
            'writev 0', 'writev x 1', 'writev 0 x', 'writev -P xx 0 1', 'writev -z 0 1', 'r -x 0 1')
        self.assert_equal_files('a.raw')

    def test_requests_that_fail(self):
        self.each(RAW, 'a.raw', 'read 1M 512', 'readv 2M 512', 'write 1048575 2', 'writev 2M 1',
                  'write -z 2M 4k', 'write -c 0 64k', 'write -zn 0 3G', 'read -b 0 512',
                  'write -b 0 512')
        self.each([*RAW, '-r'], 'a.raw', 'write 0 512', 'write -z 0 512', 'writev 0 512', 'write')
        self.put('rules', b'[inject-error]\nevent = "read_aio"\nerrno = "28"\n')
        self.image('a.qcow2')
        self.each(QCOW2, 'blkdebug:rules:a.qcow2', 'read 0 512', 'readv 0 512')

    def test_an_image(self):
        self.image('a.qcow2')
        self.commands(QCOW2, 'a.qcow2', 'write -P 1 0 128k', 'write -c -P 2 128k 64k',
                      'write -P 3 140k 1k', 'write -z 64k 10k', 'write -zu 0 64k',
                      'writev -P 9 500k 1k 64k 3', 'read -P 2 150k 1k', 'write -c 1 512',
                      'write -c 64k 512', 'read -P 3 140k 1k', 'write 1048575 1')
        self.assert_equal_disks('a.qcow2')

    def test_the_state_of_a_virtual_machine(self):
        for options in ((), ('-o', 'cluster_size=512'), ('-o', 'extended_l2=on'),
                        ('-o', 'compat=0.10')):
            self.image('a.qcow2', *options)
            self.commands(QCOW2, 'a.qcow2', 'read -b 0 512', 'write -P 8 0 1M',
                          'write -b -P 3 0 64k', 'read -b -P 3 0 64k', 'write -b -P 4 1k 512',
                          'read -b -P 3 0 1k', 'read -b -P 4 1k 512', 'read -b -P 3 1536 32k',
                          'read -b -P 0 64k 1M', 'write -b -P 6 100M 512', 'length', 'map',
                          'write -b -s none 0 512', 'write -b 1 512', 'write -b 0 1',
                          'read -b 1 512', 'read -b 0 1', 'write -b -c 64k 512')
            self.each([*QCOW2, '-r'], 'a.qcow2', 'read -b -P 6 100M 512', 'write -b 0 512')
            # It lies where the other program finds it.
            os.rename(self.path('mine/a.qcow2'), self.path('swap'))
            os.rename(self.path('theirs/a.qcow2'), self.path('mine/a.qcow2'))
            os.rename(self.path('swap'), self.path('theirs/a.qcow2'))
            self.commands(QCOW2, 'a.qcow2', 'read -b -P 3 0 1k', 'read -b -P 4 1k 512',
                          'read -b -P 6 100M 512', 'read -P 8 0 1M', 'write -b -P 7 512 32k',
                          'read -b -P 3 0 512', 'read -b -P 7 512 32k', 'read -P 8 0 1M')
            self.assert_equal_disks('a.qcow2')
        self.each(RAW, 'a.raw', 'read -b 0 512', 'write -b 0 512', 'read -b 0 1')

    def test_cache_modes(self):
        for mode in ('none', 'writeback', 'writethrough', 'directsync', 'unsafe', 'off'):
            self.commands([*RAW, '-t', mode], 'a.raw', 'write -P 4 1 5', 'read 0 512',
                          'writev 4k 512', 'write -z 8k 4k', 'aio_write 0 1k', 'aio_flush')
            self.assert_equal_files('a.raw')
        self.commands([*RAW, '-n', '-m'], 'a.raw', 'write -P 6 512 1k', 'read -P 6 512 1k')
        self.assert_equal_files('a.raw')


if __name__ == '__main__':
    harness.main()
