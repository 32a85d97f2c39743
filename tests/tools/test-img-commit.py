# SPDX-License-Identifier: LGPL-2.1-or-later
"""commit: side by side with QEMU's, each reading what the other made of it."""
import json
import os

import chain
import harness

# Clusters, the base's format and size; the image on top is of 6 MiB.
SHAPES = [
    ('cluster_size=512', 'raw', '4M'),
    ('cluster_size=2M', 'qcow2', '4M'),
    ('cluster_size=16k,extended_l2=on', 'raw', '3000k'),
    ('cluster_size=64k,compat=0.10', 'qcow2', '8M'),
    ('cluster_size=4k,lazy_refcounts=on,compression_type=zstd', 'raw', '7M'),
]


class Commit(chain.Chain):
    def check_commit(self, *args, overlay='top', layers=tuple(chain.LAYERS)):
        before = self.content('mine', overlay)
        result = self.both('commit', *args)
        self.assertEqual(result.status, 0, result)
        self.assert_clean(*layers)
        self.assertTrue(self.content('mine', overlay) == before, args)
        for name in layers:
            self.assertTrue(self.content('mine', name) == self.content('theirs', name), name)
            self.assertEqual(self.layers('mine', name), self.layers('theirs', name), (args, name))

    def test_what_is_committed_is_what_qemu_commits(self):
        self.make_chain()
        for args in (['top'], ['-d', 'top'], ['-b', 'mid', 'top'],
                     ['-q', '-f', 'qcow2', 'mid'], ['-t', 'directsync', '-r', '1G', 'top'],
                     ['--image-opts', '-t', 'unsafe', 'driver=qcow2,file.filename=top'],
                     ['--object', 'secret,id=a,data=x', '--base', 'base', '--drop', 'top']):
            if not self.knows('commit', args):
                continue
            with self.subTest(args=args):
                self.twice()
                self.check_commit(*args, overlay=args[-1] if args[-1] == 'mid' else 'top')

    def test_every_shape_of_qcow2_is_committed(self):
        for shape, base, size in SHAPES:
            with self.subTest(shape=shape, base=base, size=size):
                self.make_chain(shape, base, size)
                images = chain.LAYERS if base == 'qcow2' else ['mid', 'top']
                self.twice()
                before = self.content('mine')
                result = self.both('commit', '-b', 'base', 'top')
                self.assertEqual(result.status, 0, result)
                self.assert_clean(*images)
                self.assertTrue(self.content('mine') == before)
                self.assertTrue(self.content('mine', 'base') == self.content('theirs', 'base'))
                result = self.img('commit', 'top', cwd=self.path('mine'))
                self.assertEqual(result.status, 0, result)
                self.assert_clean(*images)
                self.assertTrue(self.content('mine') == before)

    def test_an_emptied_image_takes_no_more_space_than_qemus(self):
        self.make_chain()
        self.twice()
        self.both('commit', 'top')
        for folder in ('mine', 'theirs'):
            depths = {run[1] for run in self.layers(folder)}
            self.assertNotIn(0, depths)
        self.assertLessEqual(os.path.getsize(self.path('mine/top')),
                             os.path.getsize(self.path('theirs/top')))

    def test_snapshots_and_bitmaps_stay_whole(self):
        self.make_chain()
        self.make('snapshot', '-c', 'old', 'top')
        self.make('bitmap', '--add', 'mid', 'below')
        self.make('bitmap', '--add', 'top', 'above')
        self.twice()
        self.check_commit('top')
        for name, bitmap in (('mid', 'below'), ('top', 'above')):
            info = json.loads(self.qemu('info', '--output=json', name,
                                        cwd=self.path('mine')).out)
            bitmaps = info['format-specific']['data']['bitmaps']
            self.assertEqual([(one['name'], one['flags']) for one in bitmaps],
                             [(bitmap, ['auto'])])

    def test_the_base_is_found_from_the_image_it_is_named_in(self):
        os.mkdir(self.path('sub'))
        self.make('create', '-q', '-f', 'qcow2', 'sub/base', '1M')
        self.make('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', 'sub/mid')
        self.make('create', '-q', '-f', 'qcow2', '-b', 'mid', '-F', 'qcow2', 'sub/top')
        for name in ('base', './base', '../sub/base', 'mid', 'sub/base', 'sub/mid', 'top', '',
                     self.path('sub/base')):
            with self.subTest(name=name):
                self.check_same('commit', '-b', name, 'sub/top')

    def test_what_is_wrong_is_said_as_qemu_says_it(self):
        self.make_chain()
        self.twice()
        for args in (['base'], [], ['a', 'b'], ['none'], ['-f', 'raw', '--image-opts', 'top'],
                     ['-f', 'raw', 'top'], ['-b', 'none', 'top'], ['-b', 'top', 'top'],
                     ['-r', 'foo', 'top'], ['-r', '-5', 'top'], ['-r', '1xx', 'top'],
                     ['-t', 'foo', 'top'], ['-z', 'top'], ['-f', 'nope', 'top']):
            with self.subTest(args=args):
                self.assertEqual(self.both('commit', *args).status, 1)
        self.assertEqual(self.layers('mine'), self.layers('theirs'))

    def test_a_base_that_cannot_be_written_to_leaves_all_as_it_was(self):
        self.make_chain()
        os.chmod(self.path('mid'), 0o444)
        self.twice('base', 'mid', 'top')
        before = self.content('mine')
        result = self.img_without_privilege('commit', 'top', cwd=self.path('mine'))
        self.assertEqual(result.status, 1)
        self.assertEqual(result.out + self.plain(result.err),
                         "qemu-img: Could not open 'mid': Permission denied\n")
        self.assertTrue(self.content('mine') == before)
        self.assert_clean('top')

    def test_nothing_is_lost_when_the_disk_is_full(self):
        self.make_chain()
        for event in ('write_aio', 'cluster_alloc', 'flush_to_disk'):
            with self.subTest(event=event):
                self.twice()
                before = self.content('mine')
                result = self.img(
                    'commit', '--image-opts', 'driver=qcow2,file.filename=top,'
                    'backing.driver=qcow2,backing.file.driver=blkdebug,'
                    'backing.file.image.driver=file,backing.file.image.filename=mid,'
                    'backing.file.inject-error.0.event=%s,'
                    'backing.file.inject-error.0.errno=28' % event, cwd=self.path('mine'))
                self.assertEqual(result.status, 1, result)
                self.assertIn('No space left on device', result.err)
                self.assertNotIn('committed', result.out)
                self.assertEqual(self.read('mine/top'), self.read('top'))
                self.assertTrue(self.content('mine') == before)
                self.assert_clean('mid', 'top')
                result = self.img('commit', 'top', cwd=self.path('mine'))
                self.assertEqual(result.status, 0, result)
                self.assertTrue(self.content('mine') == before)

    def test_a_chain_that_others_write_to_is_left_alone(self):
        self.make_chain()
        self.twice()
        size = os.path.getsize(self.path('mine/top'))
        for name in ('mid', 'top'):
            with self.held(name, cwd=self.path('mine')):
                result = self.img('commit', 'top', cwd=self.path('mine'))
            self.assertEqual(result.status, 1, (name, result))
            self.assertIn('"write" lock', result.err)
            self.assertIn('Is another process using the image [%s]?' % name, result.err)
        self.assertEqual(os.path.getsize(self.path('mine/top')), size)

    def test_progress_ends_at_all_of_it(self):
        self.make_chain()
        self.twice()
        result = self.img('commit', '-p', 'top', cwd=self.path('mine'))
        self.assertTrue(result.out.startswith('    (0.00/100%)\r'), result)
        self.assertTrue(result.out.endswith('    (100.00/100%)\r\nImage committed.\n'), result)


if __name__ == '__main__':
    harness.main()
