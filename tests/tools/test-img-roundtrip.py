#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images that QEMU and we write to in turn: each finds whole and equal what the other wrote.

Every image has a twin, a raw file that gets the same writes; scribble writes for us
(through the C API), qemu-io for QEMU.
"""
import os
import random

import harness

SIZE = (3 << 20) + 70 * 512


class Shape:
    """Create options, and what goes with them."""

    def __init__(self, options='', size=SIZE, compress=True, backing=False,
                 qemu_compress=True):
        self.options = options
        self.size = size
        self.compress = compress
        self.qemu_compress = compress and qemu_compress
        self.backing = backing
        self.cluster = 65536
        for part in options.split(','):
            if part.startswith('cluster_size='):
                self.cluster = int(part[13:])


SHAPES = {
    'v2': Shape('compat=0.10'),
    'v3': Shape('compat=1.1'),
    'cluster_512': Shape('cluster_size=512'),
    'cluster_1k_v2': Shape('cluster_size=1024,compat=0.10'),
    'cluster_4k': Shape('cluster_size=4096'),
    'cluster_256k': Shape('cluster_size=262144'),
    'cluster_2M': Shape('cluster_size=2097152', size=9 << 20),
    'extended_l2': Shape('extended_l2=on'),
    'extended_l2_cluster_16k': Shape('extended_l2=on,cluster_size=16384'),
    'extended_l2_cluster_2M': Shape('extended_l2=on,cluster_size=2097152', size=9 << 20),
    'extended_l2_zstd': Shape('extended_l2=on,compression_type=zstd'),
    'data_file': Shape('data_file=%s.data', compress=False),
    'data_file_raw': Shape('data_file=%s.data,data_file_raw=on', compress=False),
    'data_file_extended_l2': Shape('data_file=%s.data,extended_l2=on', compress=False),
    'lazy_refcounts': Shape('lazy_refcounts=on'),
    'refcount_1': Shape('refcount_bits=1', compress=False),
    'refcount_2': Shape('refcount_bits=2', compress=False),
    'refcount_4': Shape('refcount_bits=4'),
    'refcount_8': Shape('refcount_bits=8'),
    'refcount_32': Shape('refcount_bits=32'),
    'refcount_64_cluster_512': Shape('refcount_bits=64,cluster_size=512'),
    'zstd': Shape('compression_type=zstd'),
    'zstd_cluster_4k': Shape('compression_type=zstd,cluster_size=4096'),
    'preallocated': Shape('preallocation=metadata'),
    'preallocated_extended_l2': Shape('preallocation=falloc,extended_l2=on'),
    'backing': Shape(backing=True),
    # In version 2 a discard leaves what is over a backing file allocated.
    'backing_v2': Shape('compat=0.10', backing=True, qemu_compress=False),
    'backing_extended_l2': Shape('extended_l2=on', backing=True),
    'backing_shorter': Shape(size=SIZE + 200000 // 512 * 512, backing=True),
    'backing_zstd_cluster_4k': Shape('compression_type=zstd,cluster_size=4096', backing=True),
}
# For a quick run, and the sanitizers.
QUICK = ('v2', 'cluster_512', 'extended_l2_cluster_16k', 'data_file_raw', 'lazy_refcounts',
         'refcount_1', 'zstd', 'backing_extended_l2')
# With the allocation and the zeroing of a real file system.
ON_DISK = ('v3', 'preallocated', 'preallocated_extended_l2', 'data_file_raw')


class RoundTripTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.need_reference_text()
        if harness.reference_io() is None:
            self.skipTest('no qemu-io')

    def ok(self, result):
        self.assertEqual(result.status, 0, result)

    def create(self, program, shape):
        """image.qcow2 of the shape, over base.qcow2 or nothing; twin.raw reads like it."""
        args = ['create', '-q', '-f', 'qcow2']
        if shape.backing:
            self.write('base.raw', random.Random(1).randbytes(1 << 20) + bytes(1 << 20) +
                       b'base' * 100000, size=SIZE)
            self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'base.raw',
                             'base.qcow2'))
            os.replace(self.path('base.raw'), self.path('twin.raw'))
            args += ['-b', 'base.qcow2', '-F', 'qcow2']
        else:
            self.write('twin.raw')
        os.truncate(self.path('twin.raw'), shape.size)
        if shape.options:
            args += ['-o', shape.options.replace('%s', 'image')]
        self.ok(program(*args, 'image.qcow2', shape.size))

    def written_by_us(self, shape, seed, count=60):
        unit = [shape.cluster] if shape.compress else []
        for kind, name in (('qcow2', 'image.qcow2'), ('raw', 'twin.raw')):
            self.ok(harness.run(harness.ours('../tests/tools/scribble'),
                                [kind, name, seed, count, *unit], self.scratch))

    def written_by_qemu(self, shape, seed, count=40):
        dice = random.Random(seed)
        commands = []
        for _ in range(count):
            offset = dice.randrange(shape.size // 512) * 512
            length = min(dice.randrange(1, 300) * 512, shape.size - offset)
            kind = dice.choice(['', '', '-z', '-z -u', 'discard', '-c'])
            pattern = '-P %d' % dice.randrange(1, 255)
            if kind == '-c' and shape.qemu_compress:
                offset = offset // shape.cluster * shape.cluster
                length = min(shape.cluster, shape.size - offset)
            elif kind == '-c':
                kind = ''
            if kind in ('discard', '-c'):  # QEMU compresses only what is not allocated
                commands.append(('discard %d %d' % (offset, length),) * 2)
                kind = kind.replace('discard', '')
            flags = kind if kind.startswith('-z') else '%s %s' % (kind, pattern)
            commands.append(('write %s %d %d' % (flags, offset, length),
                             'write %s %d %d' % (flags.replace('-c', ''), offset, length)))
        for at, (kind, name) in enumerate((('qcow2', 'image.qcow2'), ('raw', 'twin.raw'))):
            args = [part for both in commands for part in ('-c', both[at])]
            self.ok(harness.run(harness.reference_io(), ['-f', kind, '-d', 'unmap', *args, name],
                                self.scratch))

    def judge(self, when):
        """Both say that the image is whole and holds the bytes of its twin."""
        for program in (self.qemu, self.img):
            for args in (['check', '-f', 'qcow2', 'image.qcow2'],
                         ['compare', '-f', 'qcow2', '-F', 'raw', 'image.qcow2', 'twin.raw']):
                result = program(*args)
                self.assertEqual(result.status, 0, '%s: %r' % (when, result))

    def in_turn(self, shape):
        self.create(self.img, shape)
        self.written_by_us(shape, 11)
        self.judge('created and written by us')
        self.written_by_qemu(shape, 12)
        self.judge('written on by QEMU')
        self.create(self.qemu, shape)
        self.written_by_qemu(shape, 13)
        self.written_by_us(shape, 14)
        self.judge('created by QEMU, written on by us')

    def test_dirty_image_of_a_killed_program(self):
        shape = Shape('lazy_refcounts=on')
        for killed in ('ours', 'theirs'):
            self.create(self.qemu, shape)
            self.written_by_qemu(shape, 21)
            if killed == 'theirs':
                harness.run(harness.reference_io(),
                            ['-c', 'write -P 5 1M 300k', '-c', 'flush', '-c', 'sigraise 9',
                             'image.qcow2'], self.scratch)
            else:
                harness.run(harness.ours('../tests/tools/scribble'),
                            ['qcow2', 'image.qcow2', 21, 40, '--kill'], self.scratch)
                harness.run(harness.ours('../tests/tools/scribble'), ['raw', 'twin.raw', 21, 40],
                            self.scratch)
            self.assertIn(b'\0\0\0\0\0\0\0\1', self.read('image.qcow2')[72:80], killed)
            if killed == 'theirs':
                self.ok(harness.run(harness.reference_io(), ['-f', 'raw', '-c',
                                                             'write -P 5 1M 300k', 'twin.raw'],
                                    self.scratch))
                self.written_by_us(shape, 22)
            else:
                self.written_by_qemu(shape, 22)
            self.judge('killed: ' + killed)


def add_test(name, shape):
    def test(self):
        self.in_turn(shape)
    setattr(RoundTripTest, 'test_' + name, harness.on_disk(test) if name in ON_DISK else test)


for shape_name, its_shape in SHAPES.items():
    if shape_name in QUICK or not harness.quick_run():
        add_test(shape_name, its_shape)


if __name__ == '__main__':
    harness.main()
