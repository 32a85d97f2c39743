#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io: map, alloc, info, length, truncate, discard and flush, side by side with QEMU's."""
import os

import harness
from io_testing import IoTest

RAW = ['-f', 'raw']
QCOW2 = ['-f', 'qcow2']


class Image(IoTest):
    def setUp(self):
        super().setUp()
        self.put('a.raw', b'x', size=1 << 20)

    def test_map_and_alloc(self):
        self.image('base.qcow2')
        self.image('a.qcow2', '-b', 'base.qcow2', '-F', 'qcow2')
        commands = ['map', 'alloc 0', 'alloc 0 1M', 'alloc 64k 1k', 'alloc 128k 1', 'alloc 2M 1',
                    'alloc 1 1', 'alloc 0 0', 'alloc 0 3G', 'a 100k 300k', 'alloc x', 'alloc 0 x',
                    'alloc', 'alloc 0 3 5', 'alloc -1', 'map 3']
        self.commands(QCOW2, 'base.qcow2', 'write 0 64k', 'write 300k 100k')
        self.commands(QCOW2, 'a.qcow2', 'write 128k 128k', 'write -z 512k 64k', *commands)
        self.commands(QCOW2, 'a.qcow2', 'map')
        self.commands(QCOW2, 'blkdebug::a.qcow2', 'map')
        self.commands(RAW, 'a.raw', *commands)
        self.put('none.raw')
        self.commands(RAW, 'none.raw', 'map', 'alloc 0', 'read 0 0')

    def test_info(self):
        self.image('a.qcow2', '-o', 'cluster_size=4k,lazy_refcounts=on')
        self.commands(QCOW2, 'a.qcow2', 'info', 'i')
        self.commands(RAW, 'a.raw', 'info', 'info 3')
        self.same('--image-opts', '-c', 'info', 'driver=file,filename=a.raw')
        self.same('--image-opts', '-c', 'info', 'driver=null-co,size=5G,read-zeroes=on')

    def test_lengths(self):
        for size in (0, 1, 511, 1000, 1025, 1048064, 1048575, 1049000, 1572864, 123456789,
                     1610612736, 1 << 40, 1 << 50, 1200000000000000000):
            self.same('--image-opts', '-c', 'length', '-c', 'l', 'driver=null-co,size=%d' % size)

    def test_truncate(self):
        self.image('a.qcow2')
        self.commands(RAW, 'a.raw', 'truncate 2M', 'length', 't 1000', 'length',
                      'truncate -m full 64k', 'truncate -m falloc 1M', 'length', 'truncate -m x 3',
                      'truncate -m metadata 3M', 'truncate -m full 1k', 'truncate', 'truncate x',
                      'truncate 9E', 'truncate 1 2 3 4', 'truncate -1', 'truncate -m off 2M')
        self.assert_equal_files('a.raw')
        self.commands(QCOW2, 'a.qcow2', 'write 0 512k', 'truncate 3M', 'length',
                      'truncate -m metadata 4M', 'truncate 1M', 'read -P 0 512k 512k', 'length')
        self.commands([*RAW, '-r'], 'a.raw', 'truncate 512')
        self.assert_equal_disks('a.qcow2')

    def test_discard_and_flush(self):
        self.image('a.qcow2')
        self.commands(RAW, 'a.raw', 'discard 0 64k', 'd 0 512', 'discard -C 0 64k',
                      'discard -q 0 64k', 'discard 1 64k', 'discard 0 0', 'flush', 'f')
        self.assert_equal_files('a.raw')
        self.commands(RAW, 'a.raw', 'discard 1', 'discard x 3', 'discard 3 x', 'discard 0 3G',
                      'discard 0 9E', 'discard 2M 1k', 'discard 0 1 2', 'discard -v 0 1', 'flush 3')
        self.commands([*RAW, '-r'], 'a.raw', 'discard 0 512', 'flush')
        self.commands([*QCOW2, '-d', 'unmap'], 'a.qcow2', 'write 0 512k', 'discard 64k 128k',
                      'map', 'flush', 'read -P 0 64k 128k')
        self.assert_equal_disks('a.qcow2')

    def test_discard_reaches_the_file_if_asked_to(self):
        self.put('b.raw', b'x' * (1 << 20))
        for mode in ('ignore', 'unmap'):
            self.commands([*RAW, '-d', mode], 'b.raw', 'discard 0 512k')
            self.assert_equal_files('b.raw')
            mine, theirs = (os.stat(self.path(folder + '/b.raw')).st_blocks
                            for folder in self.folders)
            self.assertEqual(mine, theirs, mode)


if __name__ == '__main__':
    harness.main()
