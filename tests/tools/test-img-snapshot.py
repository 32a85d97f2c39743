#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img snapshot against qemu-img snapshot."""
import json
import re
import time

import harness

KIB = 1024
MIB = 1024 * KIB


class SnapshotTest(harness.ToolTest):

    def test_every_image(self):
        self.need_reference_text()

        def check(image):
            self.check_same('snapshot', '-l', *harness.source(image), cwd=harness.Corpus.folder)
        self.for_images(check, lambda image: image['expect'] == 'ok' and not image['opts'])

    def test_backing_file_that_is_missing(self):
        self.need_reference_text()

        def check(image):
            result = self.check_same('snapshot', '-l', *harness.source(image),
                                     cwd=harness.Corpus.folder)
            self.assertEqual((result.status, result.out), (1, ''))
        self.for_images(check, lambda image: image['name'] == 'names-missing')

    def test_list_is_the_default(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        self.make('snapshot', '-c', 'one', 'a.qcow2')
        self.make('snapshot', '-c', 'a longer name of a snapshot', 'a.qcow2')
        self.need_reference_text()
        for args in (['-l'], [], ['-q', '-l'], ['-U', '-l'], ['-f', 'qcow2']):
            result = self.check_same('snapshot', *args, 'a.qcow2')
            self.assertIn('a longer name', result.out)

    def test_wrong_usage(self):
        self.need_reference_text()
        for args in (['-l'], ['-l', '-c', 'x', 'a'], ['-l', 'missing'], []):
            self.check_same('snapshot', *args)

    # ---- Changes -------------------------------------------------------------------------

    def pair(self, *options):
        """The same image for ours and for the reference, with something in it."""
        for name in ('mine', 'theirs'):
            self.make('create', '-q', '-f', 'qcow2', *options, name, '1M')
            self.fill(name, 0, 256 * KIB, 1)

    def fill(self, name, offset, length, value, *flags):
        self.need_reference()
        flags = ' '.join(flags)
        result = harness.run(harness.reference_io(), [
            '-f', 'qcow2', '-c', 'write %s -P %d %d %d' % (flags, value, offset, length),
            self.path(name)])
        self.assertIn('wrote %d' % length, result.out, result)

    def both(self, *args):
        """Run both, each on its own image; they end alike. Returns ours."""
        mine = self.img('snapshot', *args, 'mine')
        theirs = self.qemu('snapshot', *args, 'theirs')
        self.assertEqual((mine.status, mine.out), (theirs.status, theirs.out), (args, mine, theirs))
        return mine, theirs

    def both_say(self, *args):
        mine, theirs = self.both(*args)
        if self.compares_text:
            self.assertEqual(self.plain(mine.err).replace('mine', 'theirs'),
                             self.plain(theirs.err), args)
        return mine

    def lists(self, name):
        """The list, without dates."""
        text = self.img('snapshot', '-l', name).out
        if self.compares_text:
            self.assertEqual(text, self.qemu('snapshot', '-l', name).out)
        return re.sub(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE', text)

    def assert_clean(self, name):
        for tool in (self.qemu, self.img):
            result = tool('check', name)
            self.assertEqual(result.status, 0, result)

    def test_changes_say_and_list_the_same(self):
        self.need_reference_text()
        self.pair()
        for args in (['-c', 'one'], ['-c', 'one'], ['-c', '1'], ['-c', ''], ['-d', '3'],
                     ['-d', 'one'], ['-d', 'none'], ['-a', 'none'], ['-a', '2'], ['-a', '1'],
                     ['-c', 'x' * 300], ['-q', '-a', 'one'], ['-d', '']):
            self.both_say(*args)
            self.assertEqual(self.lists('mine'), self.lists('theirs'), args)
        self.assert_clean('mine')

    def test_long_options(self):
        """QEMU 10.0 has them, but leaves them their argument."""
        self.pair()
        for args in (['--create', 's'], ['--apply', 's'], ['--delete', 's']):
            result = self.img('snapshot', *args, 'mine')
            self.assertEqual((result.status, result.out, result.err), (0, '', ''), args)
        self.assertEqual(self.img('snapshot', '--list', 'mine').out, '')

    def test_the_date_is_now(self):
        self.make('create', '-q', '-f', 'qcow2', 'a', '1M')
        before = int(time.time())
        self.assertEqual(self.img('snapshot', '-c', 's', 'a').status, 0)
        info = json.loads(self.qemu('info', '--output=json', 'a').out)
        snapshot = info['snapshots'][0]
        self.assertTrue(before <= snapshot['date-sec'] <= time.time(), snapshot)
        self.assertEqual((snapshot['id'], snapshot['vm-state-size'], snapshot['vm-clock-sec']),
                         ('1', 0, 0))

    def test_image_opts_and_sharing(self):
        self.need_reference_text()
        self.pair()
        result = self.img('snapshot', '--image-opts', '-c', 's', 'driver=qcow2,file.filename=mine')
        self.assertEqual(result.status, 0, result)
        self.assertIn(' s ', self.lists('mine'))
        before = self.read('mine')
        self.both_say('-U', '-c', 't')
        self.assertEqual(self.read('mine'), before)

    def test_what_cannot_be_is_refused(self):
        self.need_reference_text()
        for name in ('mine', 'theirs'):
            self.write(name, size=MIB)
        for letter in 'cad':
            self.both('-f', 'raw', '-%s' % letter, 's')
        for name in ('mine', 'theirs'):
            self.make('create', '-q', '-f', 'qcow2', '-o', 'data_file=%s.data' % name, name, '1M')
        for letter in 'cad':
            self.both('-%s' % letter, 's')

    def test_refcounts_without_room(self):
        for bits in (1, 2):
            self.pair('-o', 'refcount_bits=%d' % bits)
            for _ in range(4):
                mine, _ = self.both('-c', 's')
            self.assertEqual(mine.status, 1)
            self.assertIn('refcount_bits', mine.err)
            self.assert_clean('mine')
            self.assertEqual(self.lists('mine'), self.lists('theirs'))

    # ---- Both ways -----------------------------------------------------------------------

    def step(self, tools, number, letter, name):
        result = tools[number % len(tools)]('snapshot', '-' + letter, name, 'a')
        self.assertEqual(result.status, 0, (number, letter, name, result))
        self.assert_clean('a')

    def assert_content(self, data, *choice):
        for tool in (self.img, self.qemu):
            result = tool('convert', '-f', 'qcow2', '-O', 'raw', *choice, 'a', 'out')
            self.assertEqual(result.status, 0, result)
            found = self.read('out')
            # Through a snapshot, the length is the disk's.
            length = min(len(found), len(data))
            self.assertTrue(found[:length] == data[:length], (choice, tool))

    def work(self, data, number):
        """Change the disk a bit, and the model of it."""
        for offset, length, value, flags in (
                (number * 70000 // 512 * 512, 100 * KIB, number + 1, ''),
                (number * 150000 // 512 * 512, 50 * KIB, 0, ('-z', '-z -u')[number % 2])):
            offset %= MIB - 128 * KIB
            pattern = '' if flags else '-P %d' % value
            result = harness.run(harness.reference_io(), [
                '-f', 'qcow2', '-c', 'write %s %s %d %d' % (flags, pattern, offset, length),
                self.path('a')])
            self.assertIn('wrote %d' % length, result.out, result)
            data = data[:offset] + bytes([value]) * length + data[offset + length:]
        return data

    def resize(self, data, size):
        self.make('resize', '-q', '--shrink', 'a', str(size))
        return (data + bytes(max(size - len(data), 0)))[:size]

    def run_both_ways(self, options, tools):
        self.make('create', '-q', '-f', 'qcow2', '-o', options, 'a', '1M')
        kept = {}
        # Compressed clusters, which QEMU writes to where nothing is only.
        self.fill('a', 512 * KIB, 128 * KIB, 200, '-c')
        data = self.work(bytes(512 * KIB) + bytes([200]) * 128 * KIB + bytes(384 * KIB), 0)
        for number, (letter, name) in enumerate((('c', 's1'), ('c', 's2'), ('a', 's1'), ('c', 's3'),
                                                 ('d', 's2'), ('a', 's3'), ('d', 's1'),
                                                 ('c', 's4'), ('a', 's3'))):
            self.step(tools, number, letter, name)
            if letter == 'c':
                kept[name] = data
            elif letter == 'a':
                data = kept[name]
            else:
                del kept[name]
            self.assert_content(data)
            if number == 5 and 'compat' not in options:
                data = self.resize(data, 2 * MIB)
            data = self.work(data, number + 1)
        for name, content in kept.items():
            self.assert_content(content, '-l', 'snapshot.name=' + name)
        for number, (name, content) in enumerate(kept.items()):
            self.step(tools, number + 1, 'a', name)
            self.assertEqual(len(content), json.loads(
                self.img('info', '--output=json', 'a').out)['virtual-size'])
            self.assert_content(content)
            self.step(tools, number, 'd', name)
        self.assert_content(content)

    def test_every_shape_both_ways(self):
        self.need_reference_text()
        shapes = ('cluster_size=512,refcount_bits=64', 'cluster_size=16k,extended_l2=on',
                  'cluster_size=4k,compat=0.10', 'refcount_bits=8,lazy_refcounts=on')
        for number, options in enumerate(shapes):
            with self.subTest(options=options):
                self.run_both_ways(options, [self.img, self.qemu][::(1, -1)[number % 2]])

    # ---- Below filters ---------------------------------------------------------------------

    def through(self, filter_name, name):
        child = 'image' if filter_name == 'blkdebug' else 'file'
        return ['--image-opts', 'driver=%s,%s.driver=qcow2,%s.file.filename=%s' % (
            filter_name, child, child, name)]

    def test_filters_have_the_snapshots_of_the_image(self):
        self.need_reference_text()
        for name in ('compress', 'blkdebug', 'preallocate', 'copy-on-read'):
            with self.subTest(filter=name):
                self.pair()
                for tool, image in ((self.img, 'mine'), (self.qemu, 'theirs')):
                    above = self.through(name, image)
                    for args in (['-c', 'one'], ['-c', 'two'], ['-d', 'one'], ['-a', 'two']):
                        result = tool('snapshot', *args, *above)
                        self.assertEqual((result.status, result.err), (0, ''), (args, result))
                found = [[sn['name'] for sn in json.loads(self.qemu(
                    'info', '--output=json', image).out)['snapshots']]
                         for image in ('mine', 'theirs')]
                self.assertEqual(found, [['two'], ['two']])
                if name != 'copy-on-read':  # it needs to write, and -l opens read-only
                    self.assertIn('two', self.img(
                        'snapshot', '-l', *self.through(name, 'mine')).out)


if __name__ == '__main__':
    harness.main()
