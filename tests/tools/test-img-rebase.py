# SPDX-License-Identifier: LGPL-2.1-or-later
"""rebase: side by side with QEMU's, each reading what the other made of it."""
import json
import os

import chain
import harness

# Clusters of the chain, the new base's format and size, an option; on top are 6 MiB.
SHAPES = [
    ('cluster_size=512', 'raw', '3000k'),
    ('cluster_size=2M', 'qcow2', '3M', '-c'),
    ('cluster_size=16k,extended_l2=on', 'raw', '8M'),
    ('cluster_size=16k,extended_l2=on', 'raw', '8M', '-c'),
    ('cluster_size=64k,compat=0.10', 'raw', '6M'),
]
FILES = chain.LAYERS + ['new']


class Rebase(chain.Chain):
    def make_all(self, options='cluster_size=64k', base='qcow2', size='3M'):
        """The chain, and what it is to be put on."""
        self.make_chain(options)
        self.make('create', '-q', '-f', base, 'new', size)
        self.io('new', 'write -P 2 512k 1M', 'write -P 9 2M 64k', 'write -P 9 600k 100k', fmt=base)

    def backing(self, folder, name='top'):
        info = json.loads(self.qemu('info', '-U', '--output=json', name,
                                    cwd=self.path(folder)).out)
        return info.get('backing-filename'), info.get('backing-filename-format')

    def check_rebase(self, *args, text=True):
        """The disk is the same after that, and refers to the same file as QEMU's."""
        before = self.content('mine')
        result = self.both('rebase', *args, text=text)
        self.assertEqual(result.status, 0, result)
        self.assert_clean('top')
        self.assertTrue(self.content('mine') == before, args)
        self.assertEqual(self.backing('mine'), self.backing('theirs'), args)

    def test_the_disk_stays_the_same(self):
        self.make_all()
        for args in (['-b', 'mid'], ['-b', ''], ['-c', '-b', 'new'],
                     ['-U', '-t', 'directsync', '-T', 'unsafe', '-b', 'new'],
                     ['-q', '--backing', './base']):
            if not self.knows('rebase', args):
                continue
            with self.subTest(args=args):
                self.twice(*FILES)
                fmt = ['-F', 'qcow2'] if args[-1] else []
                self.check_rebase(*args, *fmt, 'top')

    def test_every_shape_of_qcow2_can_be_rebased(self):
        for shape, base, size, *more in SHAPES:
            with self.subTest(shape=shape, base=base, size=size, more=more):
                self.make_all(shape, base, size)
                self.twice(*FILES)
                before = self.content('mine')
                # QEMU's dies where a compressed cluster is in the way of subclusters.
                for args in (['-b', 'new', '-F', base], ['-b', ''], ['-b', 'new', '-F', base]):
                    result = self.img('rebase', *more, *args, 'top', cwd=self.path('mine'))
                    self.assertEqual((result.status, result.out + result.err), (0, ''))
                    self.assertTrue(self.content('mine') == before, args)
                self.assert_clean('top')

    def test_only_what_differs_is_brought_to_the_image(self):
        self.make_all()
        self.twice(*FILES)
        self.both('rebase', '-b', 'new', '-F', 'qcow2', 'top')
        self.assertEqual([run[:2] for run in self.layers('mine')],
                         [run[:2] for run in self.layers('theirs')])
        self.assertLessEqual(os.path.getsize(self.path('mine/top')),
                             os.path.getsize(self.path('theirs/top')))

    def test_what_both_chains_have_is_not_copied(self):
        self.make_all()
        self.twice(*FILES)
        self.both('rebase', '-b', 'base', '-F', 'qcow2', 'top')
        self.assertEqual({run[1] for run in self.layers('mine')},
                         {run[1] for run in self.layers('theirs')})

    def test_compressed_is_compressed(self):
        self.make_all()
        self.twice(*FILES)
        result = self.img('rebase', '-c', '-b', '', 'top', cwd=self.path('mine'))
        self.assertEqual(result.status, 0, result)
        found = self.img('map', '--output=json', 'top', cwd=self.path('mine'))
        self.assertTrue([run for run in json.loads(found.out) if run.get('compressed')], found)
        self.assertLess(os.path.getsize(self.path('mine/top')), os.path.getsize(self.path('mid')))

    def test_without_care_only_the_name_changes(self):
        self.make_all()
        for args in (['-b', 'none', '-F', 'qcow2'], ['-b', 'none', '-F', 'raw'], ['-b', ''], [],
                     ['-F', 'qcow2'], ['-p', '-b', 'base', '-F', 'qcow2'],
                     ['-b', 'y' * 1023, '-F', 'raw']):
            with self.subTest(args=args):
                self.twice(*FILES)
                self.both('rebase', '-u', *args, 'top')
                self.assertEqual(self.backing('mine'), self.backing('theirs'))
        os.unlink(self.path('mine/mid'))
        os.unlink(self.path('theirs/mid'))
        self.both('rebase', '-u', '-b', 'base', '-F', 'qcow2', 'top')
        self.assertEqual(self.backing('mine'), ('base', 'qcow2'))

    def test_what_is_wrong_is_said_as_qemu_says_it(self):
        self.make_all('cluster_size=64k', 'raw')
        self.make('create', '-q', '-f', 'qcow2', '-b', 'top', '-F', 'qcow2', 'up')
        self.twice(*FILES, 'up')
        for folder in ('mine', 'theirs'):
            os.symlink('top', self.path(folder + '/link'))
        for args in (['top'], ['-b', 'base', '-F', 'nope', 'top'],
                     ['-u', '-b', 'base', '-F', 'nope', 'top'], ['-b', 'none', '-F', 'raw', 'top'],
                     ['-b', 'top', '-F', 'qcow2', 'top'], ['-b', 'up', '-F', 'qcow2', 'top'],
                     ['-b', './link', '-F', 'qcow2', 'top'], ['-f', 'raw', '-b', '', 'new'],
                     ['-f', 'raw', '-u', '-b', '', 'new'], ['-f', 'raw', '-u', 'new'],
                     ['-f', 'raw', '-u', '-b', 'base', 'new'], ['-f', 'raw', '-b', 'base', 'new'],
                     ['-c', '-f', 'raw', '-b', 'base', 'new'], ['-t', 'foo', '-b', 'base', 'top'],
                     ['-T', 'foo', '-b', 'base', 'top'], ['a', 'b'], [],
                     ['-f', 'qcow2', '--image-opts', '-b', 'base', 'top'], ['-z', 'top'],
                     ['-u', '-b', 'y' * 1024, '-F', 'raw', 'top'], ['-u', '-b', 'base', 'top'],
                     ['-b', 'xx:base', '-F', 'qcow2', 'top']):
            with self.subTest(args=args):
                self.assertEqual(self.both('rebase', *args).status, 1)
        self.assertEqual(self.read('mine/top'), self.read('top'))

    def test_a_reference_that_cannot_be_made_is_refused_before_anything_is_copied(self):
        self.make_all()
        self.twice(*FILES)
        self.both('rebase', '-b', 'new', 'top')
        self.assertEqual(self.read('mine/top'), self.read('top'))

    def test_an_error_leaves_the_old_reference(self):
        self.make_all()
        for event in ('write_aio', 'cluster_alloc', 'flush_to_disk'):
            with self.subTest(event=event):
                self.twice(*FILES)
                before = self.content('mine')
                result = self.img(
                    'rebase', '-b', self.path('mine/new'), '-F', 'qcow2', '--image-opts',
                    'driver=qcow2,file.driver=blkdebug,file.image.driver=file,'
                    'file.image.filename=top,file.inject-error.0.event=%s,'
                    'file.inject-error.0.errno=28' % event, cwd=self.path('mine'))
                self.assertEqual(result.status, 1, result)
                self.assertIn('No space left on device', result.err)
                self.assertEqual(self.backing('mine'), ('mid', 'qcow2'))
                self.assertTrue(self.content('mine') == before)
                self.assert_clean('top')

    def test_below_a_filter(self):
        self.make_all()
        for args in (['-u', '-b', 'new', '-F', 'qcow2'], ['-b', '']):
            with self.subTest(args=args):
                self.twice(*FILES)
                before = self.content('mine')
                result = self.img(
                    'rebase', *args, '--image-opts',
                    'driver=blkdebug,image.driver=qcow2,image.file.filename=top',
                    cwd=self.path('mine'))
                self.assertEqual((result.status, result.err), (0, ''))
                if '-u' in args:
                    self.assertEqual(self.backing('mine'), ('new', 'qcow2'))
                else:
                    self.assertTrue(self.content('mine') == before)
                    self.assertEqual(self.backing('mine'), (None, None))

    def test_progress_ends_at_all_of_it(self):
        self.make_all()
        self.twice(*FILES)
        result = self.img('rebase', '-p', '-b', 'new', '-F', 'qcow2', 'top',
                          cwd=self.path('mine'))
        self.assertTrue(result.out.startswith('    (0.00/100%)\r'), result)
        self.assertTrue(result.out.endswith('    (100.00/100%)\r\n'), result)


if __name__ == '__main__':
    harness.main()
