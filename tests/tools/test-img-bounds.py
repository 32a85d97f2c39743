#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The memory that an image's header can make info and snapshot -l take is bounded.

The limit, 64 MiB of private writable memory, is on more than what becomes resident:
the stacks of threads count in full. Sanitizers take far more for themselves; under
them it is only seen that all is printed and nothing overrun.
"""
import json
import re
import struct
import sys

import harness

sys.path.insert(0, harness.IMAGES)
import qcow2 # pylint: disable=wrong-import-position

LIMIT = 64 * 1024 * 1024
COUNT = 65536
BITMAPS = 65535
BITMAPS_EXTENSION = 0x23852875


def entry(image, number, name):
    """An entry of the snapshot table: its L1 table is the active one."""
    tag = b'%d' % (number + 1)
    data = struct.pack('>QIHHIIQIIQQQ', image.header('l1_table_offset'), image.header('l1_size'),
                       len(tag), len(name), 1700000000 + number, 5, number * 10**9, 0, 24, number,
                       image.header('size'), number)
    data += tag + name
    return data + bytes(-len(data) % 8)


class BoundsTest(harness.ToolTest):

    def many_snapshots(self, file, make_name):
        self.make('create', '-q', '-f', 'qcow2', file, '1M')
        image = qcow2.Image.load(self.path(file))
        place = -(-len(image.data) // image.cluster_size) * image.cluster_size
        with open(self.path(file), 'r+b') as out:
            for name, value in (('nb_snapshots', COUNT), ('snapshots_offset', place)):
                offset, fmt = qcow2.HEADER[name]
                out.seek(offset)
                out.write(struct.pack(fmt, value))
            out.seek(place)
            for number in range(COUNT):
                out.write(entry(image, number, make_name(number)))
            out.truncate(-(-out.tell() // image.cluster_size) * image.cluster_size)

    def many_bitmaps(self, file, make_name):
        """A directory alone: info does not look at the tables, which are one cluster here."""
        self.make('create', '-q', '-f', 'qcow2', file, '1M')
        image = qcow2.Image.load(self.path(file))
        table = -(-len(image.data) // image.cluster_size) * image.cluster_size
        place = table + image.cluster_size
        offset, fmt = qcow2.HEADER['autoclear_features']
        with open(self.path(file), 'r+b') as out:
            out.seek(place)
            for number in range(BITMAPS):
                name = make_name(number)
                data = struct.pack('>QIIBBHI', table, 1, number % 4, 1, 9 + number % 8,
                                   len(name), 0) + name
                out.write(data + bytes(-len(data) % 8))
            size = out.tell() - place
            out.truncate(-(-out.tell() // image.cluster_size) * image.cluster_size)
            out.seek(offset)
            out.write(struct.pack(fmt, 1))
            out.seek(image.header('header_length'))
            out.write(struct.pack('>IIIIQQ', BITMAPS_EXTENSION, 24, BITMAPS, 0, size, place))
            out.write(bytes(8))

    def limited(self, *args):
        limit = [] if harness.is_sanitized() else ['--data=%d' % LIMIT]
        return harness.run('prlimit', [*limit, self.as_qemu, *args], self.scratch)

    def check_all_are_told(self, file):
        for args in harness.each_or_one((['info', '--output=json'],
                                         ['info', '-b', '--output=json']), file):
            result = self.limited(*args, file)
            self.assertEqual((result.status, result.err), (0, ''))
            images = json.loads(result.out)
            snapshots = (images[0] if '-b' in args else images)['snapshots']
            self.assertEqual(len(snapshots), COUNT)
            self.assertEqual(snapshots[-1]['id'], str(COUNT))
            self.assertEqual(snapshots[-1]['icount'], COUNT - 1)
        for args in harness.each_or_one((['info'], ['snapshot', '-l']), file):
            result = self.limited(*args, file)
            self.assertEqual((result.status, result.err), (0, ''))
            lines = re.findall(r'^(\d+) .* \d\d:\d\d:\d\d ', result.out, re.M)
            self.assertEqual(lines, [str(number + 1) for number in range(COUNT)])

    def test_most_snapshots(self):
        self.many_snapshots('short.qcow2', lambda number: b'%d' % number)
        self.check_all_are_told('short.qcow2')

    def test_most_snapshots_with_long_names(self):
        self.many_snapshots('long.qcow2', lambda number: b'%08d' % number + b'x' * 900)
        self.check_all_are_told('long.qcow2')

    def test_longest_strings_that_are_kept_of_a_snapshot(self):
        self.many_snapshots('kept.qcow2', lambda number: b'%08d' % number + b'x' * 247)
        self.check_all_are_told('kept.qcow2')

    def check_all_bitmaps_are_told(self, file, make_name):
        names = [make_name(number).decode() for number in range(BITMAPS)]
        result = self.limited('info', '--output=json', file)
        self.assertEqual((result.status, result.err), (0, ''))
        bitmaps = json.loads(result.out)['format-specific']['data']['bitmaps']
        flags = [[], ['in-use'], ['auto'], ['in-use', 'auto']]
        self.assertEqual(bitmaps, [{'flags': flags[number % 4], 'name': name,
                                    'granularity': 512 << number % 8}
                                   for number, name in enumerate(names)])
        result = self.limited('info', file)
        self.assertEqual((result.status, result.err), (0, ''))
        self.assertEqual(re.findall(r'^            name: (.*)$', result.out, re.M), names)

    def test_most_bitmaps(self):
        self.many_bitmaps('bits.qcow2', lambda number: b'%d' % number)
        self.check_all_bitmaps_are_told('bits.qcow2', lambda number: b'%d' % number)

    def test_most_bitmaps_with_names_that_fill_the_directory(self):
        def make_name(number):
            return b'%08d' % number + b'n' * 992

        self.many_bitmaps('names.qcow2', make_name)
        self.check_all_bitmaps_are_told('names.qcow2', make_name)

    def test_names_of_64_kib_make_the_table_too_large(self):
        """As in QEMU; it is refused before that much is held."""
        self.many_snapshots('a.qcow2', lambda number: b'')
        image = qcow2.Image.load(self.path('a.qcow2'))
        place = image.header('snapshots_offset')
        size = -(-(40 + 24 + 5 + 65535) // 8) * 8
        with open(self.path('a.qcow2'), 'r+b') as out:
            for number in range(1100):
                out.seek(place + number * size)
                out.write(entry(image, 10000 + number, b'n' * 65535))
        for args in (['info'], ['snapshot', '-l']):
            result = self.limited(*args, 'a.qcow2')
            self.assertEqual((result.status, result.out), (1, ''))
            self.assertIn('a.qcow2', result.err)
            self.assertIn('snapshots is larger than %d bytes' % LIMIT, result.err)


if __name__ == '__main__':
    harness.main()
