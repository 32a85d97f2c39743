#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img compare against qemu-img compare."""
import os
import random
import re

import harness

SIZE = 4 << 20


class CompareTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        data = bytes([1]) * 200000
        self.write('a.raw', data, size=SIZE)
        self.write('hole.raw', size=SIZE)
        self.write('longer.raw', data, size=SIZE + 1000000)
        self.write('longer-data.raw', data, size=SIZE + 1000000)
        with open(self.path('longer-data.raw'), 'r+b') as file:
            file.seek(SIZE + 300000)
            file.write(b'x')
        self.write('changed.raw', data, size=SIZE)
        with open(self.path('changed.raw'), 'r+b') as file:
            file.seek(1234567)
            file.write(b'x')

    def check_strict(self, *args):
        """QEMU sees a difference already where one of two equal runs ends the image."""
        self.check_same('compare', '-s', *args,
                        mask=lambda text: re.sub(r'Offset \d+ block', 'Offset N block', text))

    def test_raw_pairs(self):
        self.need_reference_text()
        names = ('a.raw', 'hole.raw', 'longer.raw', 'longer-data.raw', 'changed.raw')
        for first in names:
            for second in names:
                for args in harness.each_or_one(([], ['-q'], ['-p']), first, second):
                    self.check_same('compare', *args, '-f', 'raw', '-F', 'raw', first, second)
                self.check_strict('-f', 'raw', '-F', 'raw', first, second)

    def test_across_formats(self):
        for name in ('a', 'changed'):
            self.make('convert', '-f', 'raw', '-O', 'qcow2', name + '.raw', name + '.qcow2')
            self.make('convert', '-f', 'raw', '-c', '-O', 'qcow2', name + '.raw', name + 'c.qcow2')
        self.need_reference_text()
        names = ('a.raw', 'a.qcow2', 'ac.qcow2', 'changed.qcow2', 'changedc.qcow2')
        for first in names:
            for second in names:
                for args in harness.each_or_one(([], ['-p']), first, second):
                    self.check_same('compare', *args, first, second)
                self.check_strict(first, second)

    def test_odd_sizes(self):
        self.need_reference_text()
        for size in (0, 1, 511, 512, 513):
            self.write('%d.raw' % size, size=size)
            self.write('%d-data.raw' % size, b'\1' * size)
        names = sorted(name for name in os.listdir(self.scratch) if name[0].isdigit())
        for first in names:
            for second in names:
                self.check_same('compare', '-f', 'raw', '-F', 'raw', first, second)

    def test_first_of_many_differences_is_told(self):
        self.need_reference_text()
        chance = random.Random(int(os.environ.get('BLOCKGRAPH_TEST_SEED', '1')))
        self.write('big.raw', bytes([7]) * (24 << 20))
        for _ in range(5):
            data = bytearray(bytes([7]) * (24 << 20))
            for _ in range(4):
                data[chance.randrange(len(data))] = 9
            self.write('other.raw', data)
            self.check_same('compare', '-f', 'raw', '-F', 'raw', 'big.raw', 'other.raw')

    def test_every_image_with_its_content(self):
        def check(image):
            output = self.path(image['name'] + '.raw')
            self.make('convert', '-O', 'raw', *harness.source(image), output,
                      cwd=harness.Corpus.folder)
            if image['opts']:
                args = ['--image-opts', image['opts'], 'driver=raw,file.filename=' + output]
            else:
                args = ['-f', image['format'], '-F', 'raw', image['file'], output]
            result = self.img('compare', *args, cwd=harness.Corpus.folder)
            self.assertEqual((result.status, result.out), (0, 'Images are identical.\n'), result)
            os.unlink(output)
        self.for_images(check, lambda image: image['expect'] == 'ok' and image['virtual_size']
                        and 'huge' not in image['tags'])

    def test_damaged_image(self):
        def check(image):
            self.write(image['name'] + '.raw', size=image['virtual_size'] or SIZE)
            result = self.img('compare', '-f', image['format'], '-F', 'raw', image['file'],
                              self.path(image['name'] + '.raw'), cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(result), result)
            self.assertIn(result.status, (0, 1, 2, 3, 4))
            if image['expect'] == 'refuse':
                self.assertEqual(result.status, 2, result)
        self.for_images(check, lambda image: 'damaged' in image['tags'] and not image['opts'])

    def test_wrong_usage(self):
        self.need_reference_text()
        for args in ([], ['a.raw'], ['a', 'b', 'c'], ['a.raw', 'missing'], ['missing', 'a.raw'],
                     ['-f', 'qcow2', 'a.raw', 'a.raw'], ['-F', 'qcow2', 'a.raw', 'a.raw'],
                     ['-f', 'nosuch', 'a.raw', 'a.raw'], ['-m', 'a', 'b'],
                     ['-T', 'foo', 'a.raw', 'a.raw'],
                     ['--image-opts', '-f', 'raw', 'driver=raw', 'driver=raw']):
            self.check_same('compare', *args)


if __name__ == '__main__':
    harness.main()
