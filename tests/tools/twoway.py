# SPDX-License-Identifier: LGPL-2.1-or-later
"""For tests in which each program reads what the other made of an image."""
import random

import harness


class TwoWayTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.need_reference()
        self.random = random.Random(self.id())

    def io(self, name, *commands, fmt='qcow2', cwd=None):
        """Have qemu-io do something; it must not find a difference."""
        words = sum((['-c', command] for command in commands), [])
        result = harness.run(harness.reference_io(), ['-f', fmt, *words, name],
                             cwd or self.scratch)
        self.assertEqual(result.status, 0, (commands, result))
        self.assertNotIn('failed', result.out + result.err, (commands, result))

    def assert_clean(self, *names, cwd=None):
        for name in names:
            for program in (self.img, self.qemu):
                result = program('check', '-f', 'qcow2', name, cwd=cwd)
                self.assertEqual(result.status, 0, (program, result))

    def assert_content(self, name, expected):
        """Whole, and this is what both find in it."""
        self.assert_clean(name)
        for program in (self.img, self.qemu):
            result = program('convert', '-f', 'qcow2', '-O', 'raw', name, 'content.raw')
            self.assertEqual(result.status, 0, result)
            self.assertTrue(self.read('content.raw') == expected, (name, program))
