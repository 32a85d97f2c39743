#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img create against qemu-img create."""
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


if __name__ == '__main__':
    harness.main()
