#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img bench against qemu-img bench."""
import re

import harness

KIB = 1024

RUNS = (
    '-c 10', '-c 10 -w', '-c 10 -d 3 -s 8k -S 12k -o 4k', '-c 100 -d 200', '-c 300 -d 7 -s 16k',
    '-c 10 --no-drain', '-c 5 -s 256k', '-c 5 -s 2M', '-c 5 -o 1M', '-c 5 -o 252k',
    '-c 5 -o 256k', '-q -c 5', '-i threads -c 5', '-i io_uring -c 5', '-n -t none -c 5',
    '-c 50 -d 10 -w --flush-interval 10', '-c 50 -d 3 -w --flush-interval 7 --no-drain',
    '-c 9 -w -t writethrough', '-c 9 -w -t none', '-c 9 -w -t unsafe -S 0', '-U -c 3',
    '--a threads -c 3', '--o 64k -c 3',
)
REFUSED = (
    '-c 0', '-c x', '-c 4294967296', '-c 1 -d 0', '-c 1 -s 0', '-c 1 -S -1', '-c 1 -o -1',
    '-c 1 -w --pattern 300', '-c 5 --flush-interval 5', '-c 5 -w --flush-interval 5',
    '-c 5 -w -d 2 --flush-interval 1', '-c 5 -w --flush-interval -1', '-c 5 -i native',
    '-c 5 -n', '-c 5 -i foo', '-c 5 -t foo', '-c 1 -w -U',
)


def without_time(text):
    return re.sub(r'in \d+\.\d{3} seconds', 'in T seconds', text)


class BenchTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '256k')
        self.write('a.raw', bytes(range(256)) * KIB)

    def test_runs_say_what_qemus_say(self):
        self.need_reference_text()
        for line in RUNS:
            for image in (['-f', 'raw', 'a.raw'], ['-f', 'qcow2', 'a.qcow2']):
                result = self.check_same('bench', *line.split(), *image, mask=without_time)
                self.assertIn('Sending', result.out)

    def test_nonsense_is_refused_as_by_qemu(self):
        self.need_reference_text()
        for line in REFUSED:
            self.check_same('bench', *line.split(), '-f', 'raw', 'a.raw')
        for words in ([], ['a', 'b'], ['nosuch']):
            self.check_same('bench', *words)

    def test_writes_what_it_says_where_it_says(self):
        """Every step a request, round the end of the disk, and nothing between."""
        expected = bytearray(self.read('a.raw'))
        for offset in (8 * KIB, 108 * KIB, 208 * KIB):
            expected[offset:offset + 5 * KIB] = bytes([0x41]) * 5 * KIB
        result = self.img('bench', '-f', 'raw', '-w', '--pattern', '0x41', '-c', '3', '-s', '5k',
                          '-S', '100k', '-o', '8k', 'a.raw')
        self.assertEqual(result.status, 0, result)
        self.assertTrue(self.read('a.raw') == expected)
        result = self.img('bench', '-f', 'raw', '-w', '--pattern', '0x42', '-c', '500', '-d', '9',
                          '-s', '4k', '--flush-interval', '11', 'a.raw')
        self.assertEqual(result.status, 0, result)
        self.assertTrue(self.read('a.raw') == bytes([0x42]) * 256 * KIB)

    def test_no_request_goes_across_the_end(self):
        """QEMU's fail where the disk is no multiple of their size."""
        result = self.img('bench', '-f', 'raw', '-c', '300', '-d', '7', '-s', '20k', 'a.raw')
        self.assertEqual(result.status, 0, result)

    def test_reading_changes_nothing(self):
        before = self.read('a.raw')
        self.assertEqual(self.img('bench', '-f', 'raw', '-c', '200', 'a.raw').status, 0)
        self.assertTrue(self.read('a.raw') == before)

    def test_a_request_that_fails_ends_it(self):
        image = ('driver=raw,file.driver=blkdebug,file.image.filename=a.raw,'
                 'file.inject-error.0.event=none,file.inject-error.0.errno=28,'
                 'file.inject-error.0.iotype=')
        for kind, more in (('read', []), ('write', ['-w']),
                           ('flush', ['-w', '-d', '2', '--flush-interval', '3'])):
            result = self.img('bench', '-c', '100', *more, '--image-opts', image + kind)
            self.assertEqual(result.status, 1, result)
            self.assertIn('Failed request: No space left on device', result.err)
            self.assertNotIn('Run completed', result.out)


if __name__ == '__main__':
    harness.main()
