#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img create against qemu-img create."""
import json
import os
import re

import harness


class CreateTest(harness.ToolTest):

    def compare_with_reference(self, *args, name='n.raw'):
        """Both create; same messages, same length, same space on disk."""
        seen = []
        for program in (self.img, self.qemu):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
            result = program('create', *args)
            state = None
            if os.path.isfile(self.path(name)) and result.status == 0:
                stat = os.stat(self.path(name))
                # A block at the start may or may not be there.
                state = (stat.st_size, stat.st_blocks * 512 >= stat.st_size > 65536)
            # Ours names the value, too.
            err = re.sub(r", not '[^']*'$", '', self.plain(result.err), flags=re.MULTILINE)
            seen.append((result.status, self.plain(result.out), err, state))
        if not self.compares_text:
            seen = [(status, state) for status, _, _, state in seen]
        self.assertEqual(*seen, args)

    def test_sizes(self):
        self.need_reference()
        for size in ('0', '1', '512', '513', '1b', '1k', '1.5k', '1M', '10G', '0x100', ' 1', '+1M',
                     '010', '1.5', '1X', '1kB', '1KiB', '', 'foo', '1e3', '8E', '7E',
                     '9223372036854775808', '18446744073709551616'):
            self.compare_with_reference('-f', 'raw', 'n.raw', size)
        if self.compares_text:
            self.compare_with_reference('-f', 'raw', 'n.raw', '0x100k')

    def test_largest_number(self):
        result = self.img('create', '-f', 'raw', 'n.raw', '9223372036854775807')
        self.assertEqual(result.status, 1)
        self.assertIn('n.raw: The image size is too large', result.err)

    def test_options(self):
        self.need_reference()
        for args in (['-o', 'size=2M', 'n.raw'], ['-o', 'size=2M', 'n.raw', '1M'],
                     ['-o', 'preallocation=full', 'n.raw', '1M'],
                     ['-o', 'preallocation=falloc', 'n.raw', '1M'],
                     ['-o', 'preallocation=metadata', 'n.raw', '1M'],
                     ['-o', 'preallocation=off', '-o', 'nocow=on', 'n.raw', '1M'],
                     ['-o', 'preallocation=full,preallocation=off', 'n.raw', '1M'],
                     ['-o', 'foo=1', 'n.raw', '1M'], ['-o', 'foo', 'n.raw', '1M'],
                     ['-o', 'nocow=foo', 'n.raw', '1M'], ['-q', 'n.raw', '1M'], ['n.raw', '1M'],
                     ['-u', 'n.raw', '1M'], ['-f', 'file', 'n.raw', '1M'], ['n.raw'],
                     ['file:n.raw', '1M']):
            self.compare_with_reference(*args)

    def test_existing_file_is_replaced(self):
        self.write('n.raw', b'x' * 100000)
        result = self.img('create', '-q', '-f', 'raw', 'n.raw', '64k')
        self.assertEqual(result.status, 0, result)
        self.assertEqual(self.read('n.raw'), b'\0' * 65536)

    def test_help_on_options(self):
        self.need_reference_text()
        for args in (['-f', 'raw', '-o', 'help'], ['-f', 'raw', '-o', '?', 'n.raw'],
                     ['-o', 'size=1k,help', 'n.raw']):
            self.check_same('create', *args)
        self.assertFalse(os.path.exists(self.path('n.raw')))

    def test_help_as_part_of_a_value(self):
        result = self.img('create', '-f', 'qcow2', '-u', '-F', 'raw', '-o', 'backing_file=a,,help',
                          'n.qcow2', '1M')
        self.assertEqual(result.status, 0, result)
        self.assertIn('backing_file=a,,help ', result.out)
        result = self.img('create', '-q', '--object', 'secret,id=s,data=a,,help', 'n.raw', '1M')
        self.assertEqual((result.status, result.out), (0, ''), result)
        self.assertEqual(os.path.getsize(self.path('n.raw')), 1 << 20)

    def test_wrong_usage(self):
        self.need_reference_text()
        os.mkdir(self.path('sub'))
        for args in ([], ['-f', 'raw'], ['-f', 'raw', 'n.raw', '-1'], ['n.raw', '1M', 'extra'],
                     ['-f', 'bochs', 'n.raw', '1M'], ['-f', 'nosuch', 'n.raw', '1M'],
                     ['-f', 'raw', 'nosuchdir/x', '1M'], ['-f', 'raw', 'sub', '1M'],
                     ['-f', 'raw', '-b', 'a', 'n.raw'], ['-f', 'raw', '-b', 'a', '-F', 'raw', 'n'],
                     ['-f', 'raw', '-F', 'raw', 'n.raw', '1M'],
                     ['-f', 'raw', 'nosuchproto:x', '1M'], ['-f', 'raw', 'null-co://', '1M'],
                     ['--object', 'foo', 'n.raw', '1M'], ['-e', 'n.raw', '1M'],
                     ['--nosuch', 'n.raw', '1M']):
            self.check_same('create', *args)


class CreateQcow2Test(harness.ToolTest):
    """Images of both, made with equal options in folders of their own."""

    FILES = ('base.qcow2', 'base.raw', 'short.raw')

    def setUp(self):
        super().setUp()
        self.need_reference()
        self.make('create', '-q', '-f', 'qcow2', 'base.qcow2', '3M')
        self.write('base.raw', size=5000000)
        self.write('short.raw', b'abc')

    def in_folder(self, name, program, args):
        """Run in a fresh folder with the backing files: result, and the folder."""
        folder = self.path(name)
        if os.path.isdir(folder):
            harness.shutil.rmtree(folder)
        os.mkdir(folder)
        for file in self.FILES:
            os.link(self.path(file), os.path.join(folder, file))
        return program('create', '-f', 'qcow2', *args, cwd=folder), folder

    def told(self, result):
        """What a user is told; ours names the value, too."""
        err = re.sub(r", not '[^']*'$", '', self.plain(result.err), flags=re.MULTILINE)
        return (result.status, self.plain(result.out), err) if self.compares_text else \
            result.status

    def made(self, folder):
        """The new files of a folder: length and content."""
        files = {}
        for name in sorted(set(os.listdir(folder)) - set(self.FILES)):
            path = os.path.join(folder, name)
            with open(path, 'rb') as file:
                files[name] = (os.path.getsize(path), hash(file.read()))
        return files

    def compare_bytes(self, *args):
        """Same messages, and the same files byte for byte."""
        mine, my_folder = self.in_folder('mine', self.img, args)
        theirs, their_folder = self.in_folder('theirs', self.qemu, args)
        self.assertEqual(self.told(mine), self.told(theirs), args)
        self.assertEqual(self.made(my_folder), self.made(their_folder), args)
        if mine.status == 0:
            self.check_clean(my_folder, args)

    def check_clean(self, folder, args):
        for program in (self.img, self.qemu):
            checked = program('check', '-f', 'qcow2', 'a', cwd=folder)
            self.assertEqual(checked.status, 0, '%s: %r' % (args, checked))

    @staticmethod
    def places(text):
        """Where `map` says what lies; holes in the file do not matter."""
        places = []
        for run in json.loads(text):
            start, offset = run['start'], run.get('offset')
            if places:
                last_start, last_offset, length = places[-1]
                joined = last_offset is None if offset is None else \
                    last_offset is not None and last_offset + length == offset
                if joined and last_start + length == start:
                    places[-1] = (last_start, last_offset, length + run['length'])
                    continue
            places.append((start, offset, run['length']))
        return places

    def compare_structure(self, *args):
        """What info, check and map tell is the same; other bytes may differ."""
        mine, my_folder = self.in_folder('mine', self.img, args)
        theirs, their_folder = self.in_folder('theirs', self.qemu, args)
        self.assertEqual(self.told(mine), self.told(theirs), args)
        for command in ('info', 'map', 'check'):
            told = []
            for folder in (my_folder, their_folder):
                result = self.qemu(command, '--output=json', 'a', cwd=folder)
                self.assertEqual(result.status, 0, '%s: %r' % (args, result))
                told.append(self.places(result.out) if command == 'map' else
                            re.sub(r'"actual-size": \d+', '', result.out))
            self.assertEqual(told[0], told[1], (command, args))
        self.check_clean(my_folder, args)

    def test_sizes(self):
        for size in ('0', '1', '511', '513', '1M', '1G', '1T', '63T', '1000001', '2P', '3P', '8E',
                     '9223372036854775807', ''):
            self.compare_bytes('a', size)

    @harness.on_disk
    def test_options(self):
        for options in ('compat=0.10', 'compat=v2', 'compat=v3', 'lazy_refcounts=on',
                        'compression_type=zstd', 'extended_l2=on', 'nocow=on', 'encryption=off',
                        'extent_size_hint=64k', 'cluster_size=512', 'cluster_size=4k',
                        'cluster_size=8k', 'cluster_size=2M', 'refcount_bits=1',
                        'refcount_bits=4', 'refcount_bits=8', 'refcount_bits=64',
                        'data_file=d,data_file_raw=on,cluster_size=512',
                        'data_file=d,compression_type=zstd,extended_l2=on,refcount_bits=8',
                        'compat=0.10,compression_type=zlib', 'size=1M', 'cluster_size=64k'):
            self.compare_bytes('-o', options, 'a', '3M')
        self.compare_bytes('-o', 'cluster_size=4k', '-o', 'lazy_refcounts,cluster_size=8k', 'a',
                           '1M')

    @harness.on_disk
    def test_preallocation(self):
        for mode in ('off', 'metadata', 'falloc', 'full'):
            # Without data to allocate, the table moves and leaves a cluster behind.
            self.compare_structure('-o', 'preallocation=' + mode, 'a', '0')
            for extra in ('', ',extended_l2=on', ',data_file=d', ',data_file=d,extended_l2=on',
                          ',data_file=d,data_file_raw=on', ',cluster_size=512', ',compat=0.10',
                          ',cluster_size=4k,refcount_bits=64'):
                self.compare_bytes('-o', 'preallocation=' + mode + extra, 'a', '3000001')

    @harness.on_disk
    def test_refcounts_need_several_blocks(self):
        for options, size in (('refcount_bits=64', '2G'), ('cluster_size=4k', '50M'),
                              ('cluster_size=128k', '4G'),
                              ('cluster_size=2M,refcount_bits=64', '8G'),
                              ('cluster_size=16k,refcount_bits=64', '200M')):
            for mode in ('metadata', 'falloc'):
                self.compare_structure('-o', options + ',preallocation=' + mode, 'a', size)

    def test_refcount_table_grows(self):
        """What lies in space that was given up again is all that may differ."""
        for bits in (1, 16, 64):
            options = 'cluster_size=512,refcount_bits=%d' % bits
            for size in ('600M', '1G'):
                self.compare_structure('-o', options, 'a', size)
            self.compare_structure('-o', options + ',preallocation=metadata', 'a', '8200K')

    def test_backing_files(self):
        qcow2 = ['-b', 'base.qcow2', '-F', 'qcow2']
        for args in (qcow2, ['-b', 'base.raw', '-F', 'raw'], ['-b', 'short.raw', '-F', 'raw'],
                     qcow2 + ['-o', 'size=1M'], qcow2 + ['-o', 'compat=0.10'],
                     qcow2 + ['-o', 'cluster_size=512'], qcow2 + ['-o', 'backing_fmt=raw'],
                     qcow2 + ['-o', 'extended_l2=on,preallocation=full'],
                     ['-u'] + qcow2 + ['-o', 'size=1M'],
                     ['-o', 'backing_file=base.qcow2,backing_fmt=qcow2'],
                     ['-b', 'base.qcow2', '-o', 'backing_file=base.raw,backing_fmt=raw'],
                     ['-b', 'json:{"driver":"file","filename":"base.raw"}', '-F', 'raw'],
                     ['-b', './' * 505 + 'base.qcow2', '-F', 'qcow2']):
            self.compare_bytes(*args, 'a')

    def test_backing_files_that_are_refused(self):
        for args in (['-b', 'base.qcow2'], ['-b', 'base.raw', '-F', 'qcow2'],
                     ['-u', '-b', 'base.qcow2'], ['-u', '-b', 'base.qcow2', '-F', 'qcow2'],
                     ['-b', 'nosuch', '-F', 'qcow2'], ['-F', 'qcow2', '-o', 'size=1M'],
                     ['-F', 'foo', '-o', 'size=1M'], ['-b', 'base.qcow2', '-F', 'foo'],
                     ['-b', 'a', '-F', 'qcow2'], ['-o', 'backing_file=base.qcow2'], ['-b', ''],
                     ['-b', 'base.qcow2', '-F', ''],
                     ['-b', 'base.qcow2', '-F', 'qcow2', '-o', 'preallocation=metadata'],
                     ['-b', 'base.qcow2', '-F', 'qcow2', '-o', 'data_file=d,data_file_raw=on'],
                     ['-b', './' * 520 + 'base.qcow2', '-F', 'qcow2'],
                     ['-b', './' * 300 + 'base.qcow2', '-F', 'qcow2', '-o', 'cluster_size=512']):
            self.compare_bytes(*args, 'a')

    def test_its_own_backing_file(self):
        """By whatever name: what it rests on would be gone."""
        before = b'\7' * 4096
        self.write('own', before)
        os.link(self.path('own'), self.path('other-name'))
        os.symlink('own', self.path('link'))
        for name in ('own', './own', self.path('own'), 'other-name', 'link'):
            for args in (['create', '-f', 'qcow2', '-b', 'own', '-F', 'raw', name],
                         ['create', '-u', '-f', 'qcow2', '-b', 'own', '-F', 'raw', name, '1M'],
                         ['convert', '-O', 'qcow2', '-B', 'own', '-F', 'raw', 'base.qcow2', name]):
                result = self.img(*args)
                self.assertEqual(result.status, 1, args)
                self.assertIn('the same filename as the backing file', result.err)
                self.assertEqual(self.read('own'), before)

    def test_options_that_are_refused(self):
        for options in ('compat=foo', 'compat=', 'cluster_size=511', 'cluster_size=4M',
                        'cluster_size=0', 'preallocation=foo', 'lazy_refcounts=foo',
                        'compat=0.10,lazy_refcounts=on', 'refcount_bits=3', 'refcount_bits=128',
                        'refcount_bits=0', 'refcount_bits=foo', 'compat=0.10,refcount_bits=8',
                        'data_file_raw=on', 'compat=0.10,data_file=d', 'data_file=',
                        'compression_type=foo', 'compat=0.10,compression_type=zstd',
                        'extended_l2=on,cluster_size=8k', 'extended_l2=on,compat=0.10',
                        'encrypt.format=foo', 'encrypt.cipher-alg=x', 'foo=1', 'backing_fmt=raw',
                        'data_file=nosuch/d', 'backing_fmt=foo,compat=0.10,refcount_bits=3'):
            self.compare_bytes('-o', options, 'a', '1M')

    def test_of_two_errors_the_same_is_told(self):
        """Each is checked before the next."""
        errors = (['compression_type=foo'], ['compat=0.10', 'extended_l2=on'], ['cluster_size=511'],
                  ['backing_fmt=raw'], ['compat=0.10', 'lazy_refcounts=on'], ['refcount_bits=3'],
                  ['compat=0.10', 'data_file=d'], ['data_file_raw=on'])
        for first, second in zip(errors, errors[1:]):
            self.compare_bytes('-o', ','.join(dict.fromkeys(first + second)), 'a', '1M')

    def test_help_on_options(self):
        self.need_reference_text()
        self.check_same('create', '-f', 'qcow2', '-o', 'help')
        self.check_same('create', '-f', 'qcow2', '-o', 'help', 'a')

    def test_encryption_is_refused_by_name(self):
        for options, name in (('encryption=on', 'AES'), ('encrypt.format=luks', 'LUKS')):
            result = self.img('create', '-q', '-f', 'qcow2', '-o', options, 'a', '1M')
            self.assertEqual(result.status, 1)
            self.assertIn('(%s) is not supported' % name, result.err)
            self.assertFalse(os.path.exists(self.path('a')))

    def test_what_cannot_be_made_leaves_the_file_as_it_was(self):
        self.write('a', b'precious')
        result = self.img('create', '-q', '-f', 'qcow2', '-o', 'compat=foo', 'a', '1M')
        self.assertEqual(result.status, 1)
        self.assertEqual(self.read('a'), b'precious')

    def test_no_permission(self):
        os.mkdir(self.path('locked'), 0o500)
        result = self.img_without_privilege('create', '-q', '-f', 'qcow2', 'locked/a', '1M')
        self.assertEqual(result.status, 1)
        self.assertIn("Could not create 'locked/a': Permission denied", result.err)

    def test_existing_images_are_replaced(self):
        self.write('a', b'x' * 3000000)
        self.compare_structure('a', '1M')
        result = self.img('create', '-q', '-f', 'qcow2', 'a', '1M')
        self.assertEqual(result.status, 0, result)
        self.assertEqual(os.path.getsize(self.path('a')), 196616)

    def test_untrusted_follows_what_the_user_names(self):
        """The backing file is the user's, what that refers to is not."""
        self.make('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'middle.qcow2')
        first = self.img('--untrusted', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
                         'qcow2', 'a')
        self.assertEqual(first.status, 0, first)
        second = self.img('--untrusted', 'create', '-q', '-f', 'qcow2', '-b', 'middle.qcow2', '-F',
                          'qcow2', 'b')
        self.assertEqual(second.status, 1, second)
        self.assertIn('--untrusted', second.err)
        info = json.loads(self.img('info', '--output=json', 'a').out)
        self.assertEqual(info['virtual-size'], 3 * 1024 * 1024)


if __name__ == '__main__':
    harness.main()
