# SPDX-License-Identifier: LGPL-2.1-or-later
"""amend: side by side with QEMU's, and each reading what the other made of it."""
import json
import re

import harness
import twoway

KIB = 1024
MIB = 1024 * 1024


class Amend(twoway.TwoWayTest):
    def specific(self, program, name):
        """What info tells of the image, but for names and sizes on disk."""
        info = json.loads(program('info', '-U', '--output=json', name).out)
        return (info['virtual-size'], info.get('backing-filename'),
                info.get('backing-filename-format'), info['format-specific']['data'])

    def both(self, steps, *options, size='1M', prepare=(), content=True):
        """Ours and QEMU's do the steps on images of their own: same words, same outcome."""
        for who in ('mine', 'theirs'):
            words = [word.replace('IMAGE', who) for word in options]
            self.make('create', '-q', '-f', 'qcow2', *words, who, size)
            for command in prepare:
                self.io(who, command)
        for step in steps:
            mine = self.img('amend', *[word.replace('IMAGE', 'mine') for word in step])
            theirs = self.qemu('amend', *[word.replace('IMAGE', 'theirs') for word in step])
            self.assertEqual(mine.status, theirs.status, (step, mine, theirs))
            if self.compares_text:
                self.assertEqual(mine.out, theirs.out, step)
                self.assertEqual(self.plain(mine.err).replace('mine', 'theirs'),
                                 self.plain(theirs.err), step)
            expected = self.specific(self.qemu, 'theirs')
            # The names of data files differ.
            expected = json.loads(json.dumps(expected).replace('theirs', 'mine'))
            self.assertEqual(list(self.specific(self.qemu, 'mine')), expected, step)
            self.assertEqual(list(self.specific(self.img, 'mine')), expected, step)
        if content:
            self.qemu('convert', '-f', 'qcow2', '-O', 'raw', 'theirs', 'expected.raw')
            self.assert_content('mine', self.read('expected.raw'))

    def test_versions_and_features_change_as_qemus(self):
        steps = [
            ['-o', 'compat=0.10', 'IMAGE'],
            ['-o', 'lazy_refcounts=on', 'IMAGE'],
            ['-o', 'refcount_bits=8', 'IMAGE'],
            ['-o', 'compat=1.1', 'IMAGE'],
            ['-o', 'compat=v2', 'IMAGE'],
            ['-o', 'compat=v3,lazy_refcounts=on', 'IMAGE'],
            ['-o', 'lazy_refcounts=off', 'IMAGE'],
            ['-o', 'refcount_bits=1', 'IMAGE'],
            ['-o', 'refcount_bits=64', 'IMAGE'],
            ['-o', 'compat=0.10', 'IMAGE'],
            ['-o', 'compat=0.10,refcount_bits=8', 'IMAGE'],
            ['-o', 'compat=0.10', '-o', 'refcount_bits=16', 'IMAGE'],
            ['-o', 'size=3M', 'IMAGE'],
            ['-o', 'size=512K,compat=1.1', 'IMAGE'],
            ['-o', 'size=2M,refcount_bits=2,lazy_refcounts=on', 'IMAGE'],
            ['-q', '-f', 'qcow2', '-o', 'size=1M', 'IMAGE'],
            ['--image-opts', '-o', 'size=2M', 'driver=qcow2,file.filename=IMAGE'],
        ]
        prepare = ('write -P 5 100k 300k', 'write -z 64k 128k', 'write -z -u 512k 64k')
        self.both(steps, '-o', 'cluster_size=16k', prepare=prepare)
        # QEMU takes 20 s to widen refcounts of one bit in large clusters: ours does that alone.
        to_one_bit = ['-o', 'refcount_bits=1', 'IMAGE']
        self.both([step for step in steps if step != to_one_bit], prepare=prepare)
        content = self.read('expected.raw')
        for bits in (1, 64):
            result = self.img('amend', '-o', 'compat=1.1,refcount_bits=%d' % bits, 'mine')
            self.assertEqual(result.status, 0, result)
            self.assertEqual(self.specific(self.qemu, 'mine')[3]['refcount-bits'], bits)
            self.assert_content('mine', content)

    def test_errors_are_qemus(self):
        self.both([
            [], ['IMAGE'], ['-o', 'size=1M'], ['-o', 'help'], ['-f', 'raw', '-o', 'help'],
            ['-f', 'qcow2', '-o', 'help'], ['-o', 'help', 'IMAGE'], ['-o', '?', 'IMAGE'],
            ['-f', 'none', '-o', 'help', 'IMAGE'], ['-o', 'size=1M', 'IMAGE', 'more'],
            ['-f', 'raw', '-o', 'size=1M', 'IMAGE'], ['-o', 'size=1M', 'none'],
            ['-o', 'foo=1', 'IMAGE'], ['-o', 'cluster_size=64k', 'IMAGE'],
            ['-o', 'preallocation=off', 'IMAGE'], ['-o', 'encryption=on', 'IMAGE'],
            ['-o', 'encrypt.format=luks', 'IMAGE'], ['-o', 'encrypt.state=active', 'IMAGE'],
            ['-o', 'extended_l2=on', 'IMAGE'], ['-o', 'compression_type=zstd', 'IMAGE'],
            ['-o', 'compat=2', 'IMAGE'], ['-o', 'refcount_bits=0', 'IMAGE'],
            ['-o', 'refcount_bits=7', 'IMAGE'], ['-o', 'refcount_bits=128', 'IMAGE'],
            ['-o', 'size=1000', 'IMAGE'], ['-o', 'backing_file=x', 'IMAGE'],
            ['-o', 'backing_fmt=raw', 'IMAGE'], ['-o', 'data_file=x', 'IMAGE'],
            ['-o', 'data_file_raw=on', 'IMAGE'], ['-o', ',', 'IMAGE'], ['-o', '', 'IMAGE'],
            ['-t', 'what', '-o', 'size=1M', 'IMAGE'], ['-f', 'qcow2', '--image-opts', '-o',
                                                       'size=1M', 'IMAGE'],
        ])

    def test_what_prevents_downgrading_is_qemus(self):
        self.both([['-o', 'compat=0.10', 'IMAGE']], '-o', 'extended_l2=on')
        self.both([['-o', 'compat=0.10', 'IMAGE']], '-o', 'data_file=IMAGE.data')
        self.both([['-o', 'compat=0.10', 'IMAGE']], '-o', 'lazy_refcounts=on')

    def test_data_files(self):
        self.both([['-o', 'data_file_raw=on', 'IMAGE'], ['-o', 'data_file_raw=off', 'IMAGE'],
                   ['-o', 'data_file=IMAGE.other', 'IMAGE']],
                  '-o', 'data_file=IMAGE.data,data_file_raw=on', content=False)
        self.assertEqual(self.specific(self.qemu, 'mine')[3]['data-file'], 'mine.other')
        self.both([['-o', 'data_file=', 'IMAGE']], '-o', 'data_file=IMAGE.data', content=False)

    def test_zero_clusters_over_a_backing_file_become_data(self):
        for cluster_size in ('512', '64k'):
            base = self.random.randbytes(MIB - 512)
            self.write('base.raw', base)
            self.make('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', '-o',
                      'cluster_size=' + cluster_size, 'a', '2M')
            self.io('a', 'write -P 7 100k 100k', 'write -z 64k 64k', 'write -z -u 512k 300k',
                    'write -z 150k 10k', 'write -z 1536k 512k')
            self.qemu('convert', '-f', 'qcow2', '-O', 'raw', 'a', 'expected.raw')
            expected = self.read('expected.raw')
            for options in ('compat=0.10', 'compat=1.1', 'compat=1.1,refcount_bits=64'):
                result = self.img('amend', '-o', options, 'a')
                self.assertEqual(result.status, 0, result)
                self.assert_content('a', expected)
                self.assertEqual(self.specific(self.qemu, 'a')[1:3], ('base.raw', 'raw'))

    def test_snapshots_keep_their_refcounts(self):
        self.make('create', '-q', '-f', 'qcow2', 'a', '1M')
        self.io('a', 'write -P 1 0 1M')
        for name in ('s', 't'):
            self.make('snapshot', '-c', name, 'a')
            self.io('a', 'write -P 2 0 200k')
        content = b'\2' * 200 * KIB + b'\1' * (MIB - 200 * KIB)
        result = self.img('amend', '-o', 'refcount_bits=1', 'a')
        self.assertEqual(result.status, 1)
        self.assertIn('Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x',
                      result.err)
        self.assert_content('a', content)
        for bits in (2, 64, 16):
            result = self.img('amend', '-o', 'refcount_bits=%d' % bits, 'a')
            self.assertEqual(result.status, 0, result)
            self.assert_content('a', content)
        result = self.img('amend', '-o', 'compat=0.10', 'a')
        self.assertEqual(result.status, 0, result)
        self.assert_content('a', content)
        for name in ('s', 't'):
            self.make('snapshot', '-d', name, 'a')
        self.assert_content('a', content)

    def test_snapshots_of_another_size_prevent_downgrading(self):
        for who in ('mine', 'theirs'):
            self.make('create', '-q', '-f', 'qcow2', who, '1M')
            self.make('snapshot', '-c', 's', who)
            self.make('resize', '-q', who, '2M')
        mine = self.img('amend', '-o', 'compat=0.10', 'mine')
        theirs = self.qemu('amend', '-o', 'compat=0.10', 'theirs')
        self.assertEqual((mine.status, self.plain(mine.err)),
                         (theirs.status, self.plain(theirs.err)))
        self.assert_content('mine', bytes(2 * MIB))

    def test_what_would_be_lost_prevents_downgrading(self):
        """QEMU goes on here: it drops bitmaps, and clusters that nobody can decode any more."""
        self.make('create', '-q', '-f', 'qcow2', '-o', 'compression_type=zstd', 'z', '1M')
        self.make('create', '-q', '-f', 'qcow2', 'b', '1M')
        self.make('bitmap', '--add', 'b', 'bitmap')
        for name, part in (('z', 'incompatible features 0x8'), ('b', 'bitmaps')):
            result = self.img('amend', '-o', 'compat=0.10', name)
            self.assertEqual(result.status, 1, result)
            self.assertIn(part, result.err)
            self.assert_content(name, bytes(MIB))

    def test_progress_is_shown(self):
        self.make('create', '-q', '-f', 'qcow2', 'a', '1M')
        result = self.img('amend', '-p', '-o', 'refcount_bits=64', 'a')
        self.assertEqual(result.status, 0, result)
        self.assertTrue(re.search(r'\(0\.00/100%\).*\(100\.00/100%\)', result.out), result)


if __name__ == '__main__':
    harness.main()
