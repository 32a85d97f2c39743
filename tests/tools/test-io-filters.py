#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io: copy-on-read (also -C), compress and preallocate, side by side with QEMU's.

Where a cluster lies in the file is for each to choose: offsets there are left out.
"""
import json
import os
import re
import subprocess

import harness
from io_testing import IoTest

COPY = 'driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2'
COMPRESS = 'driver=compress,file.driver=qcow2,file.file.filename=top.qcow2'
SHAPES = ([], ['-o', 'compat=0.10'], ['-o', 'extended_l2=on'], ['-o', 'cluster_size=2M'])
READS = ['read -P 120 1000 512', 'read 250k 200k', 'read 1M 1k', 'map', 'alloc 0 2M', 'info',
         'read 640k 1k', 'read 1536k 3', 'map', 'length']


class Filters(IoTest):
    def setUp(self):
        super().setUp()
        self.put('base.raw', b'x' * 300000, size=1 << 20)

    def overlay(self, name='top.qcow2', base='base.raw', base_format='raw', size='2M', more=()):
        for folder in self.folders:
            if os.path.exists(self.path(f'{folder}/{name}')):
                os.unlink(self.path(f'{folder}/{name}'))
            self.make('create', '-q', '-f', 'qcow2', '-b', base, '-F', base_format, *more, name,
                      size, cwd=self.path(folder))

    def layers(self, folder, name):
        out = subprocess.run([harness.reference(), 'map', '--output=json', name],
                             cwd=self.path(folder), stdout=subprocess.PIPE, check=True).stdout
        rows = [{key: row[key] for key in ('start', 'length', 'depth', 'zero', 'data',
                                           'compressed')} for row in json.loads(out)]
        whole = []
        for row in rows: # rows end where their places do
            last = whole[-1] if whole else None
            if last and all(last[key] == row[key] for key in last if key not in
                            ('start', 'length')):
                last['length'] += row['length']
            else:
                whole.append(row)
        return whole

    def assert_equal_layers(self, name='top.qcow2'):
        self.assertEqual(self.layers('mine', name), self.layers('theirs', name))
        self.assert_equal_disks(name)

    def test_copy_on_read_option(self):
        for shape in SHAPES:
            with self.subTest(shape=shape):
                self.overlay(more=shape)
                self.commands(['-C', '-f', 'qcow2'], 'top.qcow2', *READS)
                self.assert_equal_layers()
        self.overlay()
        self.commands(['-f', 'qcow2'], 'top.qcow2', 'read 0 64k', 'map', 'close',
                      'open -C top.qcow2', 'read 640k 1k', 'map', 'close',
                      'open -C -o driver=qcow2 top.qcow2', 'read 64k 1k', 'write 128k 1k', 'map')
        self.assert_equal_layers()
        self.commands(['-sC', '-f', 'qcow2'], 'top.qcow2', 'read 700k 1k', 'map')
        self.assert_equal_layers()

    def test_copy_on_read_of_what_has_no_backing_file(self):
        self.image('top.qcow2')
        self.commands(['-C', '-f', 'qcow2'], 'top.qcow2', 'read 0 70k', 'map')
        self.assert_equal_layers()
        self.commands(['-C', '-f', 'raw'], 'base.raw', 'read 0 70k', 'map')

    def test_copy_on_read_needs_to_write(self):
        self.overlay()
        for args in (['-Cr', '-f', 'qcow2', 'top.qcow2'], ['-rC', 'none'], ['-Cr', 'top.qcow2'],
                     ['-C', '--image-opts', 'driver=qcow2,read-only=on,file.filename=top.qcow2'],
                     ['-c', 'open -rC top.qcow2', '-c', 'open -C none']):
            with self.subTest(args=args):
                self.same('-c', 'length', *args)
        args = ['-C', '-f', 'qcow2', '-c', 'reopen -r', '-c', 'read 704k 1k', '-c', 'map',
                'top.qcow2']
        self.same(*args)
        for event in ('write_aio', 'cluster_alloc'):
            self.put('rules', b'[inject-error]\nevent = "%s"\nerrno = "28"\n' % event.encode())
            self.need_io()
            args = ['-C', '--image-opts', '-c', 'read 0 512', '-c', 'map',
                    'driver=qcow2,file.driver=blkdebug,file.config=rules,'
                    'file.image.filename=top.qcow2']
            mine, theirs = self.mine(*args), self.theirs(*args) # QEMU's tells of its tables
            self.assertEqual((mine.status, mine.out), (theirs.status, theirs.out))
            self.assertIn('No space left on device', mine.out)

    def test_copy_on_read_filter(self):
        self.overlay()
        self.commands(['--image-opts'], COPY, *READS, 'write -c 128k 64k', 'write -zu 64k 64k',
                      'discard 0 64k', 'write -f 0 64k', 'flush', 'truncate 3M', 'length', 'map')
        self.assert_equal_layers()
        self.overlay()
        self.commands(['-C', '--image-opts'], COPY, 'read 960k 1k', 'map')
        self.assert_equal_layers()
        self.commands(['--image-opts'],
                      'driver=copy-on-read,file.driver=raw,file.file.filename=base.raw',
                      'read 0 1k', 'map', 'write -c 0 64k', 'write -z 0 64k', 'discard 0 64k')
        for options in (COPY + ',bottom=none', COPY + ',bottom=3', COPY + ',x=3',
                        'driver=copy-on-read'):
            self.same('--image-opts', '-c', 'map', options)
        # QEMU's does not say which node it is.
        self.need_io()
        for args in (['-r', COPY], [COPY + ',file.read-only=on']):
            args = ['--image-opts', '-c', 'map', *args]
            mine, theirs = self.mine(*args), self.theirs(*args)
            self.assertEqual((mine.status, mine.out, re.sub(r" '#block\S+ \(.*\)", '', mine.err)),
                             (theirs.status, theirs.out, theirs.err))

    def test_copy_on_read_down_to_the_bottom(self):
        self.overlay('middle.qcow2')
        self.commands(['-f', 'qcow2'], 'middle.qcow2', 'write -P 5 128k 64k')
        for bottom in ('middle', 'base'):
            self.overlay(base='middle.qcow2', base_format='qcow2')
            self.commands(['--image-opts'],
                          f'{COPY},bottom={bottom},file.backing.driver=qcow2,'
                          'file.backing.node-name=middle,file.backing.file.filename=middle.qcow2,'
                          'file.backing.backing.driver=raw,file.backing.backing.node-name=base,'
                          'file.backing.backing.file.filename=base.raw',
                          'read 0 512', 'read 100k 50k', 'read 1M 1k', 'map')
            self.assert_equal_layers()

    def test_compress(self):
        self.overlay(size='1M')
        self.commands(['--image-opts'], COMPRESS, 'write -P 3 0 64k', 'write -P 4 64k 1k',
                      'write -P 5 200k 100k', 'map', 'info', 'write -z 0 64k', 'write -c 0 64k',
                      'discard 0 64k', 'write -z 1k 1k', 'discard 65k 1k', 'flush', 'read 0 1k',
                      'length')
        self.assert_equal_layers()
        for options in ('driver=compress,file.driver=raw,file.file.filename=base.raw',
                        'driver=compress,file.driver=file,file.filename=base.raw',
                        'driver=compress,file.driver=compress,file.file.driver=qcow2,'
                        'file.file.file.filename=top.qcow2', 'driver=compress', COMPRESS + ',x=1'):
            self.same('--image-opts', '-c', 'map', options)

    def test_preallocate(self):
        for folder in self.folders:
            self.make('create', '-q', '-f', 'qcow2', 'grow.qcow2', '1G', cwd=self.path(folder))
        options = ('driver=qcow2,file.driver=preallocate,file.prealloc-align=64k,'
                   'file.prealloc-size=100k,file.file.driver=file,file.file.filename=grow.qcow2')
        self.commands(['--image-opts'], options, 'write 0 64k', 'write 1M 1M', 'length', 'map')
        self.commands(['--image-opts'], options, 'write 8M 64k', 'reopen -r', 'read 1M 1k')
        self.assertEqual(*(os.path.getsize(self.path(f'{folder}/grow.qcow2'))
                           for folder in self.folders))
        self.assert_equal_disks('grow.qcow2')
        raw = 'driver=preallocate,file.driver=file,file.filename=base.raw'
        self.commands(['--image-opts'], raw, 'write 1000k 512', 'truncate 1100k',
                      'write 1099k 1k', 'truncate 4M', 'write 1M 64k', 'length', 'info', 'map',
                      'write 5M 64k')
        self.commands(['-r', '--image-opts'], raw, 'length', 'write 0 1k', 'reopen -w',
                      'write 0 1k', unordered=True)
        self.assert_equal_files('base.raw')
        for option in ('prealloc-align=1000', 'prealloc-align=0', 'prealloc-size=0',
                       'prealloc-align=1536', 'y=1'):
            self.same('--image-opts', '-c', 'length', f'{raw},{option}')
        self.same('--image-opts', '-c', 'length', 'driver=preallocate')


if __name__ == '__main__':
    harness.main()
