# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of commit and rebase share: a chain of images, for ours and for theirs."""
import json
import os
import shutil

import twoway

LAYERS = ['base', 'mid', 'top']
# What QEMU's tools have had for some versions only.
NEW = {'commit': {'--base', '--drop'}, 'rebase': {'-c', '--backing'}}


class Chain(twoway.TwoWayTest):
    """base <- mid <- top, and two folders with the same of it."""

    def make_chain(self, options='cluster_size=64k', base='qcow2', base_size='4M', top_size='6M'):
        """Data, zeros over data and compressed clusters, each layer longer than the last."""
        extra = ['-o', options]
        self.make('create', '-q', '-f', base, *(extra if base == 'qcow2' else []), 'base',
                  base_size)
        self.io('base', 'write -P 1 0 1M', fmt=base)
        self.make('create', '-q', '-f', 'qcow2', *extra, '-b', 'base', '-F', base, 'mid')
        self.io('mid', 'write -P 2 512k 1M')
        self.make('create', '-q', '-f', 'qcow2', *extra, '-b', 'mid', '-F', 'qcow2', 'top',
                  top_size)
        self.io('top', 'write -P 3 5M 70000', 'write -z 0 64k', 'write -P 4 1M 64k',
                'write -P 5 700k 512')
        if 'cluster_size=64k' in options:
            self.io('top', 'write -c -P 6 1152k 64k')

    def twice(self, *names):
        """The files in the folders of ours and of theirs."""
        for folder in ('mine', 'theirs'):
            shutil.rmtree(self.path(folder), ignore_errors=True)
            os.mkdir(self.path(folder))
            for name in names or LAYERS:
                shutil.copy2(self.path(name), self.path(folder))

    def content(self, folder, name='top'):
        result = self.qemu('convert', '-O', 'raw', name, 'content', cwd=self.path(folder))
        self.assertEqual(result.status, 0, result)
        return self.read(folder + '/content')

    def layers(self, folder, name='top'):
        """Which layer has what: no matter where in its file."""
        result = self.qemu('map', '--output=json', name, cwd=self.path(folder))
        self.assertEqual(result.status, 0, result)
        runs = []
        for entry in json.loads(result.out):
            run = [entry['depth'], entry['present'], entry['zero'], entry['data']]
            if runs and runs[-1][1:] == run:
                runs[-1][0] += entry['length']
            else:
                runs.append([entry['length'], *run])
        return runs

    def assert_clean(self, *names, cwd=None):
        super().assert_clean(*names, cwd=cwd or self.path('mine'))

    def knows(self, command, args):
        """Whether the reference, if it is an old one, knows these options."""
        return self.compares_text or not NEW[command] & set(args)

    def both(self, command, *args, text=True):
        """The same command in both folders: the same words and exit code; returns ours."""
        mine = self.img(command, *args, cwd=self.path('mine'))
        theirs = self.qemu(command, *args, cwd=self.path('theirs'))
        self.assertEqual(mine.status, theirs.status, (args, mine, theirs))
        if text and self.compares_text:
            self.assertEqual(self.plain(mine.out), self.plain(theirs.out), args)
            self.assertEqual(self.plain(mine.err), self.plain(theirs.err), args)
        return mine
