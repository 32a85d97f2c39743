# SPDX-License-Identifier: LGPL-2.1-or-later
"""resize: side by side with QEMU's, and each reading what the other made of it."""
import json
import os
import shutil

import harness
import twoway

KIB = 1024
MIB = 1024 * 1024

SHAPES = [
    'cluster_size=512',
    'cluster_size=2M',
    'cluster_size=4k,refcount_bits=1',
    'cluster_size=64k,compat=0.10',
    'cluster_size=16k,extended_l2=on',
    'cluster_size=64k,lazy_refcounts=on,compression_type=zstd',
]


class Resize(twoway.TwoWayTest):
    def size(self, program, name):
        return json.loads(program('info', '--output=json', name).out)['virtual-size']

    def content(self, program, name):
        """The disk as raw data."""
        result = program('convert', '-f', 'qcow2', '-O', 'raw', name, 'content.raw')
        self.assertEqual(result.status, 0, result)
        return self.read('content.raw')

    def resize(self, program, name, size, *more):
        result = program('resize', '-f', 'qcow2', '--shrink', *more, name, size)
        self.assertEqual(result.status, 0, result)
        self.assertEqual(result.out, 'Image resized.\n')

    def filled(self, name, options, size, *more):
        """An image with data, zeros and compressed clusters; what the disk holds."""
        data = bytearray(self.random.randbytes(16 * KIB) * (size // (16 * KIB) + 1))[:size]
        data[size // 4:size // 2] = bytes(size // 2 - size // 4)
        self.write('data.raw', data)
        self.make('convert', '-f', 'raw', '-O', 'qcow2', '-o', options, *more, 'data.raw', name)
        return data

    # ---- Words and exit codes ------------------------------------------------------------

    def both(self, make, *args):
        """The same command on two images that are alike: same words, exit code, and size."""
        for who in ('mine', 'theirs'):
            if os.path.exists(self.path(who)):
                os.chmod(self.path(who), 0o644)
            self.make('create', '-q', *make[:-1], who, make[-1])
        mine = self.img('resize', *[word.replace('IMAGE', 'mine') for word in args])
        theirs = self.qemu('resize', *[word.replace('IMAGE', 'theirs') for word in args])
        self.assertEqual(mine.status, theirs.status, (args, mine, theirs))
        if self.compares_text:
            self.assertEqual(self.plain(mine.out), self.plain(theirs.out), args)
            self.assertEqual(self.plain(mine.err).replace('mine', 'theirs'),
                             self.plain(theirs.err), args)
        self.assertEqual(self.size(self.qemu, 'mine'), self.size(self.qemu, 'theirs'), args)

    def test_words_and_sizes_are_qemus(self):
        for args in (
                ['IMAGE', '2M'], ['IMAGE', '+1M'], ['IMAGE', '1M'], ['IMAGE', '+0'],
                ['IMAGE', '512K'], ['--shrink', 'IMAGE', '512K'],
                ['--shrink', 'IMAGE', '-512K'], ['IMAGE', '-512K', '--shrink'],
                ['--shrink', 'IMAGE', '--', '-512K'], ['IMAGE', '-512K'], ['-q', 'IMAGE', '2M'],
                ['--shrink', 'IMAGE', '-1M'], ['--shrink', 'IMAGE', '-2M'], ['IMAGE', '0'],
                ['IMAGE', '1.5M'], ['IMAGE', '1536k'], ['IMAGE', '4194304b'],
                ['--preallocation=off', 'IMAGE', '2M'], ['--preallocation=full', 'IMAGE', '2M'],
                ['--preallocation', 'falloc', 'IMAGE', '2M'],
                ['--preallocation=full', '--shrink', 'IMAGE', '64k'],
                ['--preallocation=what', 'IMAGE', '2M'], ['IMAGE'], [],
                ['IMAGE', '2M', '3M'], ['--what', 'IMAGE', '2M'], ['-f'],
                ['none', '2M'], ['--object', 'secret,id=a,data=x', 'IMAGE', '2M']):
            if args[-2:] == ['-512K', '--shrink'] and not self.compares_text:
                continue  # an older one looks for the size at the end only
            with self.subTest(args=args):
                self.both(['-f', 'qcow2', '1M'], '-f', 'qcow2', *args)

    def test_what_only_one_format_says_is_qemus(self):
        for args in (['2M'], ['512K'], ['--shrink', '512K'], ['--preallocation=full', '2M'],
                     ['0'], ['1000001']):
            self.both(['-f', 'raw', '1M'], '-f', 'raw', 'IMAGE', *args)
        self.both(['-f', 'qcow2', '1M'], '-f', 'qcow2', 'IMAGE', '1000001')
        self.both(['-f', 'qcow2', '1M'], '-f', 'qcow2', 'IMAGE', '100P')
        self.both(['-f', 'qcow2', '1M'], '-f', 'qcow2', '--preallocation=metadata', 'IMAGE', '2M')
        self.both(['-f', 'raw', '1M'], '-f', 'raw', '--preallocation=metadata', 'IMAGE', '2M')
        self.both(['-f', 'qcow2', '1M'], '--image-opts', 'driver=qcow2,file.filename=IMAGE', '2M')
        self.both(['-f', 'qcow2', '1M'], '--image-opts', '-f', 'qcow2', 'IMAGE', '2M')
        self.both(['-f', 'qcow2', '1M'], 'IMAGE', '2M')

    def test_sizes_that_are_none_are_refused(self):
        for size in ('xx', '', '+', '-', '--5', '+1.5kb', '9E'):
            self.make('create', '-q', '-f', 'qcow2', 'a', '1M')
            result = self.img('resize', '-f', 'qcow2', '--shrink', 'a', '--', size)
            self.assertEqual(result.status, 1, (size, result))
            self.assertEqual(self.size(self.img, 'a'), MIB)

    def test_snapshots_in_version_2_are_refused(self):
        for who in ('mine', 'theirs'):
            self.make('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', who, '1M')
            self.make('snapshot', '-c', 's', who)
        for size in ('2M', '512k'):
            mine = self.img('resize', '-f', 'qcow2', '--shrink', 'mine', size)
            theirs = self.qemu('resize', '-f', 'qcow2', '--shrink', 'theirs', size)
            self.assertEqual((mine.status, self.plain(mine.err)),
                             (theirs.status, self.plain(theirs.err)))
        self.assert_clean('mine')

    # ---- Both ways -----------------------------------------------------------------------

    def test_every_shape_both_ways(self):
        for options in SHAPES:
            with self.subTest(options=options):
                data = self.filled('a.qcow2', options, 3 * MIB - 1536)
                for size in (5 * MIB + 512, MIB + 512, 100 * MIB, 700 * KIB, 2 * MIB):
                    data = (data + bytes(max(size - len(data), 0)))[:size]
                    self.resize(self.img, 'a.qcow2', size)
                    if size < 2 * MIB:
                        self.assert_content('a.qcow2', data)
                # And what QEMU makes of it: it does not zero what is left of a cluster.
                self.resize(self.qemu, 'a.qcow2', 6 * MIB)
                data += bytes(4 * MIB)
                self.assert_content('a.qcow2', data)

    def test_compressed_clusters(self):
        data = self.filled('a.qcow2', 'cluster_size=64k', 3 * MIB, '-c')
        for size in (2 * MIB + 512, 3 * MIB, 33 * KIB, 5 * MIB):
            data = (data + bytes(max(size - len(data), 0)))[:size]
            self.resize(self.img, 'a.qcow2', size)
            self.assert_content('a.qcow2', data)

    def test_what_qemu_leaves_behind_the_end_does_not_show(self):
        self.filled('a.qcow2', 'cluster_size=64k', MIB)
        self.resize(self.qemu, 'a.qcow2', 600 * KIB + 512)
        before = self.content(self.qemu, 'a.qcow2')
        self.resize(self.img, 'a.qcow2', MIB)
        self.assert_content('a.qcow2', before + bytes(MIB - len(before)))
        self.assert_clean('a.qcow2')

    def test_preallocation(self):
        for mode in ('metadata', 'falloc', 'full'):
            for options in ('cluster_size=64k', 'cluster_size=64k,extended_l2=on'):
                with self.subTest(mode=mode, options=options):
                    data = self.filled('mine', options, 2 * MIB)
                    shutil.copy(self.path('mine'), self.path('theirs'))
                    for program, name in ((self.img, 'mine'), (self.qemu, 'theirs')):
                        self.resize(program, name, 9 * MIB, '--preallocation=' + mode)
                    self.assert_content('mine', data + bytes(7 * MIB))
                    maps = [[(e['start'], e['length'], e['data'])
                             for e in json.loads(self.qemu('map', '--output=json', name).out)]
                            for name in ('mine', 'theirs')]
                    # QEMU leaves the subclusters of new clusters unallocated.
                    if 'extended' not in options:
                        self.assertEqual(sum(e[1] for e in maps[0] if e[2]),
                                         sum(e[1] for e in maps[1] if e[2]))
                    mine, theirs = (os.stat(self.path(name)).st_blocks * 512
                                    for name in ('mine', 'theirs'))
                    self.assertLess(abs(mine - theirs), 512 * KIB)

    def test_backing_files_shorter_and_longer(self):
        for compat in ('0.10', '1.1'):
            for base_size in (500 * KIB, 3 * MIB):
                with self.subTest(compat=compat, base_size=base_size):
                    base = self.filled('base.qcow2', 'cluster_size=64k', base_size)
                    self.make('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base.qcow2',
                              '-o', 'compat=' + compat, 'a.qcow2', str(MIB + 512))
                    data = bytes((base + bytes(MIB + 512))[:MIB + 512])
                    for size in (700 * KIB, 4 * MIB):
                        data = (data + bytes(max(size - len(data), 0)))[:size]
                        self.resize(self.img, 'a.qcow2', size)
                        self.assert_content('a.qcow2', data)

    def test_snapshots_keep_their_data(self):
        data = self.filled('a.qcow2', 'cluster_size=64k', 2 * MIB)
        self.make('snapshot', '-c', 's', 'a.qcow2')
        self.io('a.qcow2', 'write -P 5 64k 200k')
        data[64 * KIB:264 * KIB] = b'\5' * 200 * KIB
        for size in (MIB - 512, 3 * MIB, 96 * KIB, 200 * MIB):
            data = (data + bytes(max(size - len(data), 0)))[:size]
            self.resize(self.img, 'a.qcow2', size)
            self.assert_content('a.qcow2', data)
        self.make('snapshot', '-a', 's', 'a.qcow2')
        self.assert_content('a.qcow2', self.read('data.raw'))
        self.make('snapshot', '-d', 's', 'a.qcow2')
        self.assert_clean('a.qcow2')

    def test_data_file(self):
        for raw in ('off', 'on'):
            with self.subTest(raw=raw):
                data = self.filled('a.qcow2',
                                   'cluster_size=64k,data_file=a.data,data_file_raw=' + raw,
                                   2 * MIB)
                for size in (MIB - 512, 3 * MIB, 96 * KIB, 5 * MIB):
                    data = (data + bytes(max(size - len(data), 0)))[:size]
                    self.resize(self.img, 'a.qcow2', size)
                    self.assertEqual(os.path.getsize(self.path('a.data')), size)
                    self.assert_content('a.qcow2', data)
                    if raw == 'on':
                        self.assertTrue(self.read('a.data') == data)
                self.resize(self.img, 'a.qcow2', 9 * MIB, '--preallocation=full')
                self.assert_content('a.qcow2', data + bytes(4 * MIB))

    def test_bitmaps_follow_the_size(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '10M')
        self.make('bitmap', '--add', '-g', '64k', 'a.qcow2', 'b')
        self.io('a.qcow2', 'write 0 128k', 'write 9M 64k')
        for size in (20 * MIB, 5 * MIB, 64 * MIB):
            self.resize(self.img, 'a.qcow2', size)
            self.assert_clean('a.qcow2')
            for program in (self.img, self.qemu):
                info = json.loads(program('info', '--output=json', 'a.qcow2').out)
                self.assertEqual(info['format-specific']['data']['bitmaps'],
                                 [{'flags': ['auto'], 'name': 'b', 'granularity': 64 * KIB}])
        self.make('bitmap', '--remove', 'a.qcow2', 'b')

    def test_the_file_ends_where_qemus_does(self):
        for options in ('cluster_size=64k', 'cluster_size=512'):
            self.make('create', '-q', '-f', 'qcow2', '-o', options + ',preallocation=metadata',
                      'mine', '64M')
            shutil.copy(self.path('mine'), self.path('theirs'))
            self.resize(self.img, 'mine', MIB)
            self.resize(self.qemu, 'theirs', MIB)
            self.assert_clean('mine')
            self.assertLessEqual(os.path.getsize(self.path('mine')),
                                 os.path.getsize(self.path('theirs')))

    def test_raw_both_ways(self):
        data = self.random.randbytes(100 * KIB + 512)
        for size in (300 * KIB, 50 * KIB + 1, 99 * KIB):
            self.write('mine', data)
            self.write('theirs', data)
            for program, name in ((self.img, 'mine'), (self.qemu, 'theirs')):
                result = program('resize', '-f', 'raw', '--shrink', name, size)
                self.assertEqual(result.status, 0, result)
            self.assertEqual(self.read('mine'), self.read('theirs'))

    def test_formats_of_a_fixed_size_say_so(self):
        fixture = os.path.join(harness.HERE, '..', 'fixtures', 'bochs-v2.img')
        shutil.copy(fixture, self.path('a.bochs'))
        os.chmod(self.path('a.bochs'), 0o644)
        result = self.img('resize', '-f', 'bochs', 'a.bochs', '+1M')
        self.assertEqual(result.status, 1)
        self.assertIn("Image format driver 'bochs' does not support resize", result.err)
        with open(fixture, 'rb') as file:
            self.assertEqual(self.read('a.bochs'), file.read())


if __name__ == '__main__':
    harness.main()
