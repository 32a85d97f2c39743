# SPDX-License-Identifier: LGPL-2.1-or-later
"""bitmap: side by side with QEMU's, and each reading what the other stored."""
import json
import re
import shutil
import struct

import harness

MIB = 1024 * 1024
BITMAPS_EXTENSION = 0x23852875
IN_USE = 1


def mask_nodes(text):
    """Node names that were made up differ from run to run."""
    return re.sub(r'#block\d+', '#block', text)


def directory(data):
    """Where the bitmap directory of an image lies."""
    at = struct.unpack('>I', data[100:104])[0]
    while True:
        kind, length = struct.unpack('>II', data[at:at + 8])
        if kind == BITMAPS_EXTENSION:
            return struct.unpack('>Q', data[at + 24:at + 32])[0]
        at += 8 + (length + 7) // 8 * 8


class Bitmap(harness.ToolTest):
    def setUp(self):
        super().setUp()
        self.need_reference()

    def image(self, name, *options, size='10M'):
        self.make('create', '-q', '-f', 'qcow2', *options, name, size)

    def stored(self, program, name):
        """What info tells of the bitmaps."""
        result = program('info', '-U', '--output=json', name)
        self.assertEqual(result.status, 0, result)
        return json.loads(result.out)['format-specific']['data'].get('bitmaps', [])

    def both(self, steps, *options, size='10M', check=True):
        """Ours and QEMU's do the steps on images of their own: same words, same outcome."""
        for who in ('mine', 'theirs'):
            self.image(who + '.qcow2', *options, size=size)
        for step in steps:
            mine = self.img('bitmap', *[word.replace('IMAGE', 'mine.qcow2') for word in step])
            theirs = self.qemu('bitmap', *[word.replace('IMAGE', 'theirs.qcow2')
                                           for word in step])
            self.assertEqual(mine.status, theirs.status, (step, mine, theirs))
            if self.compares_text:
                self.assertEqual(mask_nodes(self.plain(mine.err)),
                                 mask_nodes(self.plain(theirs.err)), step)
            self.assertEqual(mine.out, theirs.out, step)
        expected = self.stored(self.qemu, 'theirs.qcow2')
        self.assertEqual(self.stored(self.qemu, 'mine.qcow2'), expected)
        self.assertEqual(self.stored(self.img, 'mine.qcow2'), expected)
        if check:
            self.assert_clean('mine.qcow2')

    def assert_clean(self, name):
        for program in (self.img, self.qemu):
            result = program('check', name)
            self.assertEqual(result.status, 0, result)

    def mark(self, name, *ranges):
        """Have QEMU write, which marks the enabled bitmaps."""
        commands = sum((['-c', 'write -P 1 %d %d' % place] for place in ranges), [])
        result = harness.run(harness.reference_io(), [*commands, name], self.scratch)
        self.assertEqual(result.status, 0, result)

    def test_actions_do_what_qemu_does(self):
        self.both([
            ['--add', 'IMAGE', 'b0'],
            ['--add', '-g', '512', 'IMAGE', 'b1'],
            ['--add', '-g', '2G', 'IMAGE', 'b2'],
            ['--add', '--granularity', '1M', '--disable', 'IMAGE', 'b3'],
            ['--disable', 'IMAGE', 'b0'],
            ['--enable', '--clear', 'IMAGE', 'b3'],
            ['--merge', 'b1', 'IMAGE', 'b0'],
            ['--remove', 'IMAGE', 'b1'],
            ['--add', '--clear', '--enable', '--merge', 'b0', '--disable', 'IMAGE', 'b4'],
            ['--remove', '--add', 'IMAGE', 'b2'],
            ['--add', '-f', 'qcow2', 'IMAGE', 'b5'],
            ['--add', '--image-opts', 'driver=qcow2,file.filename=IMAGE', 'b6'],
            ['--add', '--remove', 'IMAGE', 'b7'],
        ])

    def test_all_bitmaps_removed_leave_none(self):
        self.both([['--add', 'IMAGE', 'a'], ['--add', 'IMAGE', 'b'], ['--remove', 'IMAGE', 'a'],
                   ['--remove', 'IMAGE', 'b']])
        self.assertEqual(self.stored(self.img, 'mine.qcow2'), [])

    def test_default_granularity_follows_the_cluster_size(self):
        for size in ('512', '4k', '32k', '64k', '2M'):
            with self.subTest(cluster_size=size):
                self.both([['--add', 'IMAGE', 'b']], '-o', 'cluster_size=' + size)

    def test_errors_are_qemus(self):
        long_name = 'n' * 1024
        self.both([
            ['--add', 'IMAGE', 'b'],
            ['--add', 'IMAGE', 'b'],
            ['--add', 'IMAGE', ''],
            ['--add', 'IMAGE', long_name],
            ['--add', 'IMAGE', long_name[1:]],
            ['--add', '-g', '500', 'IMAGE', 'c'],
            ['--add', '-g', '256', 'IMAGE', 'c'],
            ['--add', '-g', 'x', 'IMAGE', 'c'],
            ['--add', '-g', '0', 'IMAGE', 'c0'],
            ['--remove', 'IMAGE', 'none'],
            ['--clear', 'IMAGE', 'none'],
            ['--enable', 'IMAGE', 'none'],
            ['--disable', 'IMAGE', 'none'],
            ['--merge', 'b', 'IMAGE', 'none'],
            ['--merge', 'none', 'IMAGE', 'b'],
            ['--merge', 'none', 'IMAGE', 'none2'],
            ['--add', '--merge', 'none', 'IMAGE', 'half-done'],
            ['--clear', '--remove', '--clear', 'IMAGE', 'b'],
        ])

    def test_usage_errors_are_qemus(self):
        self.both([
            ['--add'],
            ['--add', 'IMAGE'],
            ['--add', 'IMAGE', 'a', 'b'],
            ['IMAGE', 'a'],
            ['-g', '64k', '--remove', 'IMAGE', 'a'],
            ['-F', 'qcow2', '--merge', 'a', 'IMAGE', 'a'],
            ['-b', 'x', '--add', 'IMAGE', 'a'],
            ['-g', '64k', '-F', 'raw', 'IMAGE', 'a'],
            ['-f', 'qcow2', '--image-opts', '--add', 'IMAGE', 'a'],
            ['--bogus', 'IMAGE', 'a'],
            ['--add', 'nowhere', 'a'],
            ['--merge', 'a', '-b', 'nowhere', 'IMAGE', 'a'],
        ])

    def test_images_that_cannot_store_bitmaps_are_refused(self):
        self.both([['--add', 'IMAGE', 'b']], '-o', 'compat=0.10')
        self.both([['--add', '-g', '8k', 'IMAGE', 'b'], ['--add', '-g', '16k', 'IMAGE', 'c']],
                  size='64T', check=False)
        self.write('disk.raw', size=MIB)
        self.check_same('bitmap', '--add', '-f', 'raw', 'disk.raw', 'b', mask=mask_nodes)

    def test_inconsistent_bitmaps_can_only_be_removed(self):
        self.image('image.qcow2')
        self.make('bitmap', '--add', 'image.qcow2', 'b')
        self.make('bitmap', '--add', '--disable', 'image.qcow2', 'c')
        data = bytearray(self.read('image.qcow2'))
        data[directory(data) + 15] |= IN_USE
        for who in ('mine', 'theirs'):
            self.write(who + '.qcow2', bytes(data))
        steps = [[action, 'IMAGE', 'b'] for action in ('--clear', '--enable', '--disable',
                                                       '--add')]
        steps += [['--merge', 'c', 'IMAGE', 'b'], ['--merge', 'b', 'IMAGE', 'c'],
                  ['--enable', 'IMAGE', 'c'], ['--remove', 'IMAGE', 'b']]
        for step in steps:
            mine = self.img('bitmap', *[word.replace('IMAGE', 'mine.qcow2') for word in step])
            theirs = self.qemu('bitmap', *[word.replace('IMAGE', 'theirs.qcow2')
                                           for word in step])
            self.assertEqual(mine.status, theirs.status, (step, mine, theirs))
            if self.compares_text:
                self.assertEqual(self.plain(mine.err), self.plain(theirs.err), step)
            self.assertEqual(self.stored(self.qemu, 'mine.qcow2'),
                             self.stored(self.qemu, 'theirs.qcow2'), step)
            self.assert_clean('mine.qcow2')

    def merged_into_empty(self, program, source):
        """Store what QEMU marked in `source` through `program`; the runs."""
        self.image('copy.qcow2')
        self.make('bitmap', '--add', '--disable', '-g', '512', 'copy.qcow2', 'copy')
        result = program('bitmap', '--merge', 'b', '-b', source, '-F', 'qcow2', 'copy.qcow2',
                         'copy')
        self.assertEqual(result.status, 0, result)
        self.assert_clean('copy.qcow2')
        return self.runs('copy.qcow2', 'copy')

    def runs(self, name, bitmap):
        """The dirty runs of a bitmap, (start, length) in bytes, read from the image itself."""
        data = self.read(name)
        size, = struct.unpack('>Q', data[24:32])
        at = start = directory(data)
        while True:
            table, count, _, _, bits, length, extra = struct.unpack('>QIIBBHI', data[at:at + 24])
            at += 24 + extra
            if data[at:at + length].decode() == bitmap:
                break
            at += length + (start - at - length) % 8
        stored = b''.join(self.bits(data, entry) for entry in
                          struct.unpack('>%dQ' % count, data[table:table + 8 * count]))
        digits = bin(int.from_bytes(stored, 'little'))[:1:-1][:(size - 1 >> bits) + 1]
        return [(run.start() << bits, len(run.group()) << bits)
                for run in re.finditer('1+', digits)]

    @staticmethod
    def bits(data, entry):
        """The cluster of bits that an entry of a bitmap's table stands for."""
        cluster = 1 << struct.unpack('>I', data[20:24])[0]
        offset = entry & 0x00fffffffffffe00
        if offset:
            return data[offset:offset + cluster].ljust(cluster, b'\0')
        return (b'\xff' if entry & 1 else b'\0') * cluster

    def test_each_reads_what_the_other_stored(self):
        ranges = [(0, 512), (MIB, 65536), (5 * MIB + 1024, 3 * MIB), (10 * MIB - 512, 512)]
        for granularity in ('512', '4k', '64k', '4M'):
            with self.subTest(granularity=granularity):
                self.image('theirs.qcow2')
                self.make('bitmap', '--add', '-g', granularity, 'theirs.qcow2', 'b')
                self.mark('theirs.qcow2', *ranges)
                before = self.runs('theirs.qcow2', 'b')
                expected = self.merged_into_empty(self.qemu, 'theirs.qcow2')
                self.assertTrue(expected)
                self.assertEqual(self.merged_into_empty(self.img, 'theirs.qcow2'), expected)
                # Ours stores it anew; QEMU then reads what we wrote.
                shutil.copy(self.path('theirs.qcow2'), self.path('mine.qcow2'))
                result = self.img('bitmap', '--enable', 'mine.qcow2', 'b')
                self.assertEqual(result.status, 0, result)
                self.assert_clean('mine.qcow2')
                self.assertEqual(self.runs('mine.qcow2', 'b'), before)
                self.assertEqual(self.merged_into_empty(self.qemu, 'mine.qcow2'), expected)

    def test_full_bitmaps_are_read_by_qemu(self):
        self.image('full.qcow2', '-o', 'cluster_size=512', size='4M')
        self.make('bitmap', '--add', '-g', '512', 'full.qcow2', 'b')
        self.mark('full.qcow2', (0, 4 * MIB))
        self.image('other.qcow2', size='4M')
        self.make('bitmap', '--add', '-g', '512', 'other.qcow2', 'c')
        result = self.img('bitmap', '--merge', 'b', '-b', 'full.qcow2', 'other.qcow2', 'c')
        self.assertEqual(result.status, 0, result)
        self.assert_clean('other.qcow2')
        self.make('bitmap', '--add', '--merge', 'c', 'other.qcow2', 'd')
        self.assertEqual(self.runs('other.qcow2', 'd'), [(0, 4 * MIB)])

    def test_writes_mark_what_qemu_marks(self):
        """A guest write through our writer is in the bitmap that we store."""
        self.write('disk.raw', b'x' * 4096 + bytes(700 * 1024) + b'y', size=MIB)
        for options in ([], ['--target-is-zero']):
            runs = []
            for program in (self.img, self.qemu):
                self.image('disk.qcow2', '-o', 'cluster_size=4k', size='1M')
                for granularity in ('512', '4k', '64k'):
                    self.make('bitmap', '--add', '-g', granularity, 'disk.qcow2', granularity)
                result = program('convert', '-n', *options, '-O', 'qcow2', 'disk.raw',
                                 'disk.qcow2')
                self.assertEqual(result.status, 0, result)
                self.assert_clean('disk.qcow2')
                runs.append([self.runs('disk.qcow2', name) for name in ('512', '4k', '64k')])
            self.assertEqual(*runs)
        self.assertEqual(runs[0][1], [(0, 4096), (704 * 1024, 4096)])


    def damaged(self, damage):
        """Two copies of an image that stores two bitmaps; damage changes the bytes."""
        self.image('image.qcow2', '-o', 'cluster_size=4k', size='4M')
        self.make('bitmap', '--add', '-g', '4k', 'image.qcow2', 'b')
        self.mark('image.qcow2', (0, 65536), (2 * MIB, 4096))
        self.make('bitmap', '--add', '--disable', '-g', '512', 'image.qcow2', 'c')
        data = bytearray(self.read('image.qcow2'))
        damage(data)
        for who in ('mine', 'theirs'):
            self.write(who + '.qcow2', bytes(data))

    def same_steps(self, steps, compares_errors=True):
        """Ours and QEMU's do other things than `bitmap` to images that store bitmaps."""
        for step in steps:
            mine = self.img(*[word.replace('IMAGE', 'mine.qcow2') for word in step])
            theirs = self.qemu(*[word.replace('IMAGE', 'theirs.qcow2') for word in step])
            self.assertEqual(mine.status, theirs.status, (step, mine, theirs))
            if self.compares_text:
                if compares_errors:
                    self.assertEqual(self.plain(mine.err), self.plain(theirs.err), step)
                self.assertEqual(re.sub('Image end offset.*', '', mine.out),
                                 re.sub('Image end offset.*', '', theirs.out), step)
            self.assertEqual(self.stored(self.img, 'mine.qcow2'),
                             self.stored(self.qemu, 'theirs.qcow2'), step)

    def test_check_counts_and_frees_what_qemu_does(self):
        """The clusters of bitmaps belong to them, also if in use; not if they were dropped."""
        def forget(data):
            data[88:96] = bytes(8)

        def use(data):
            data[directory(data) + 15] |= IN_USE

        steps = [['check', 'IMAGE'], ['check', '-r', 'leaks', 'IMAGE'], ['check', 'IMAGE'],
                 ['check', '-r', 'all', 'IMAGE']]
        for damage in (lambda data: None, use, forget):
            self.damaged(damage)
            # QEMU warns of bitmaps that were dropped, whatever it does.
            self.same_steps(steps, compares_errors=damage != forget)
            self.assert_clean('mine.qcow2')
        self.assertEqual(self.stored(self.img, 'mine.qcow2'), [])

    def test_bitmaps_follow_the_length_of_the_disk(self):
        self.damaged(lambda data: None)
        self.same_steps([['resize', 'IMAGE', '+1M'], ['resize', '--shrink', 'IMAGE', '1M'],
                         ['resize', 'IMAGE', '3M']])
        self.assert_clean('mine.qcow2')
        self.assertEqual(self.runs('mine.qcow2', 'b'), self.runs('theirs.qcow2', 'b'))
        self.assertEqual(self.runs('mine.qcow2', 'b')[0], (0, 65536))

    def test_inconsistent_bitmaps_forbid_to_resize(self):
        def use(data):
            data[directory(data) + 15] |= IN_USE

        self.damaged(use)
        self.same_steps([['resize', 'IMAGE', '+1M'], ['resize', '--shrink', 'IMAGE', '1M']])

    def test_applying_a_snapshot_is_refused(self):
        self.damaged(lambda data: None)
        self.same_steps([['snapshot', '-c', 's', 'IMAGE'], ['snapshot', '-a', 's', 'IMAGE'],
                         ['snapshot', '-d', 's', 'IMAGE']])
        self.assert_clean('mine.qcow2')

    def test_bitmaps_pass_back_and_forth(self):
        """Each changes, in turn, what the other has stored."""
        self.image('disk.qcow2', '-o', 'cluster_size=4k', size='4M')
        expected = []
        for i, program in enumerate([self.img, self.qemu] * 3):
            name = 'b%d' % i
            result = program('bitmap', '--add', '-g', '4k', 'disk.qcow2', name)
            self.assertEqual(result.status, 0, result)
            expected.append(name)
            if i % 3 == 2:
                result = program('bitmap', '--remove', 'disk.qcow2', expected.pop(0))
                self.assertEqual(result.status, 0, result)
            self.mark('disk.qcow2', (i * 65536, 4096))
            self.assert_clean('disk.qcow2')
            for reader in (self.img, self.qemu):
                self.assertEqual([bitmap['name'] for bitmap in self.stored(reader, 'disk.qcow2')],
                                 expected)
            for name in expected:
                self.assertEqual(self.runs('disk.qcow2', name),
                                 [(j * 65536, 4096) for j in range(int(name[1:]), i + 1)])


if __name__ == '__main__':
    harness.main()
