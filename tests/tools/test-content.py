#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Digests of files with holes are those of all their bytes."""
import hashlib
import tempfile
import unittest

import content
import harness


class DigestTest(unittest.TestCase):

    def test_holes_and_zeros_are_the_same(self):
        size = content.SPARSE + 70001
        digests = set()
        for zeros in (False, True):
            for _ in range(2):
                with tempfile.NamedTemporaryFile() as file:
                    for offset, data in ((size - 1, b'\0'), (3, b'a'), (65530, b'b' * 20),
                                         (1 << 20, bytes(200000 if zeros else 1)),
                                         (size - 9, b'c')):
                        file.seek(offset)
                        file.write(data)
                    file.flush()
                    with open(file.name, 'rb') as again:
                        self.assertEqual(content.sha256(file.name),
                                         hashlib.sha256(again.read()).hexdigest())
                    digests.add(content.sha256(file.name))
        self.assertEqual(len(digests), 1)

    def test_other_places_and_sizes_differ(self):
        digests = set()
        for size, offset in ((1, 0), (2, 0), (1, 1), (1, 65536), (65536, 0)):
            with tempfile.NamedTemporaryFile() as file:
                file.truncate(content.SPARSE + size)
                file.seek(offset)
                file.write(b'x')
                file.flush()
                digests.add(content.sha256(file.name))
        self.assertEqual(len(digests), 5)


if __name__ == '__main__':
    harness.main()
