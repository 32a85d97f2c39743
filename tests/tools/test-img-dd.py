#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img dd against qemu-img dd."""
import os

import harness


class DdTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.write('a.raw', bytes(range(256)) * 1000 + b'\0' * 100000 + b'z' * 1000, size=1 << 20)
        self.write('odd.raw', b'q' * 513)
        self.write('empty.raw')

    def compare_with_reference(self, *args):
        seen = []
        for program in (self.img, self.qemu):
            if os.path.exists(self.path('out.raw')):
                os.unlink(self.path('out.raw'))
            result = program('dd', *args)
            content = self.read('out.raw') if os.path.exists(self.path('out.raw')) else None
            seen.append((result.status, self.plain(result.out), self.plain(result.err), content))
        if not self.compares_text:
            seen = [(status, content) for status, _, _, content in seen]
        self.assertEqual(seen[0], seen[1], args)

    def test_ranges(self):
        self.need_reference()
        for args in ([], ['bs=64k'], ['bs=64k', 'count=2'], ['bs=64k', 'skip=2', 'count=1'],
                     ['skip=100000'], ['bs=64k', 'skip=1', 'count=10'], ['bs=64k', 'skip=16'],
                     ['bs=64k', 'skip=3', 'count=3'], ['bs=64k', 'skip=17'], ['bs=1M'],
                     ['count=0'], ['bs=3', 'count=2'], ['bs=700', 'skip=1'], ['bs=4M'],
                     ['-f', 'raw', '-O', 'raw'], ['-U'], ['bs=12345', 'count=7', 'skip=2']):
            for name in ('a.raw', 'odd.raw', 'empty.raw'):
                self.compare_with_reference(*args, 'if=' + name, 'of=out.raw')

    def test_image_options(self):
        self.make('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2')
        for args in (['if=a.qcow2'], ['-f', 'qcow2', 'if=a.qcow2', 'bs=4k', 'skip=10'],
                     ['--image-opts', 'if=driver=qcow2,file.filename=a.qcow2']):
            self.compare_with_reference(*args, 'of=out.raw')

    def test_wrong_usage(self):
        self.need_reference_text()
        for args in ([], ['if=a.raw'], ['of=out.raw'], ['if=a.raw', 'of=out.raw', 'bs=0'],
                     ['if=a.raw', 'of=out.raw', 'bs=foo'], ['if=a.raw', 'of=out.raw', 'bs=2G'],
                     ['if=a.raw', 'of=out.raw', 'count=foo'], ['if=missing', 'of=out.raw'],
                     ['if=a.raw', 'of=nosuchdir/x'], ['if=a.raw', 'of=out.raw', 'foo=1'],
                     ['if=a.raw', 'of=out.raw', 'foo'], ['if=a.raw', 'of=out.raw', 'seek=1'],
                     ['-f', 'nosuch', 'if=a.raw', 'of=out.raw'],
                     ['-O', 'bochs', 'if=a.raw', 'of=out.raw'],
                     ['-n', 'if=a.raw', 'of=out.raw']):
            self.compare_with_reference(*args)

    def test_unknown_output_format(self):
        result = self.img('dd', '-O', 'nosuch', 'if=a.raw', 'of=out.raw')
        self.assertEqual(result.status, 1)
        self.assertIn('Unknown file format', result.err)

    def test_input_is_not_overwritten(self):
        before = self.read('a.raw')
        result = self.img('dd', '-f', 'raw', 'if=a.raw', 'of=a.raw')
        self.assertEqual(result.status, 1, result)
        self.assertEqual(self.read('a.raw'), before)


if __name__ == '__main__':
    harness.main()
