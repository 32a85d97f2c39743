#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command on every image of the corpus, damaged ones too: the same exit code as
QEMU 10.0 and, where both convert, the same bytes. docs/compatibility.md has the
exceptions, and they must be as it says."""
import fnmatch
import hashlib
import os

import harness

READERS = {
    'info': ('info', '--output=json'),
    'info --backing-chain': ('info', '--backing-chain', '--output=json'),
    'map': ('map',),
    'map --output=json': ('map', '--output=json'),
    'check': ('check',),
    'measure': ('measure', '-O', 'qcow2'),
    'snapshot -l': ('snapshot', '-l'),
}


class EqualTest(harness.ToolTest):

    def compare_status(self, image, command, args):
        """Run both; returns the exit codes, which are equal or as the page says."""
        mine = self.img(*args, cwd=harness.Corpus.folder)
        theirs = self.qemu(*args, cwd=harness.Corpus.folder)
        self.assertFalse(harness.crashed(mine), mine)
        expected = harness.difference(image, command) or (theirs.status, theirs.status)
        self.assertEqual((mine.status, theirs.status), expected,
                         '%s: %r\nreference: %r' % (command, mine, theirs))
        return expected

    def convert(self, image):
        """Convert with both; the name of the reference's result, if there is one."""
        names = [self.path('%s.%s' % (image['name'], end)) for end in ('mine', 'theirs')]
        base = ['convert', '-O', 'raw', *harness.source(image)]
        mine = self.img(*base, names[0], cwd=harness.Corpus.folder)
        theirs = self.qemu(*base, names[1], cwd=harness.Corpus.folder)
        self.assertFalse(harness.crashed(mine), mine)
        expected = harness.difference(image, 'convert') or (theirs.status, theirs.status)
        self.assertEqual((mine.status, theirs.status), expected,
                         'convert: %r\nreference: %r' % (mine, theirs))
        if expected == (0, 0):
            digests = []
            for name in names:
                with open(name, 'rb') as file:
                    digests.append(hashlib.file_digest(file, 'sha256').hexdigest())
            self.assertEqual(digests[0], digests[1], 'converted content')
        if os.path.exists(names[0]):
            os.unlink(names[0])
        return names[1] if theirs.status == 0 else None

    def check_image(self, image):
        for command, args in READERS.items():
            self.compare_status(image, command, [*args, *harness.source(image)])
        if 'huge' in image['tags']:
            return
        content = self.convert(image)
        if content is None:
            return
        args = ['compare', '-f', image['format'], '-F', 'raw', image['file'], content]
        if image['opts']:
            args = ['compare', '--image-opts', image['opts'], 'driver=raw,file.filename=' + content]
        self.compare_status(image, 'compare', args)
        os.unlink(content)

    def test_every_command_on_every_image(self):
        self.need_reference_text()
        self.for_images(self.check_image)

    def test_exceptions_are_of_images_that_exist(self):
        if harness.quick_run():
            self.skipTest('a quick run has not all images')
        self.need_reference()
        names = [image['name'] for image in harness.Corpus.load()]
        for patterns, _ in harness.differences():
            for pattern in patterns:
                self.assertTrue(fnmatch.filter(names, pattern), pattern)


if __name__ == '__main__':
    harness.main()
