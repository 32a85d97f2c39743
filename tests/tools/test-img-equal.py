#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command on every image of the corpus, damaged ones too: the same exit code as
QEMU 10.0 and, where both convert, the same bytes. docs/compatibility.md has the
exceptions, and they must be as it says."""
import fnmatch
import os

import content
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


# QEMU follows a loop of backing files until it has no more of these, ever slower.
FILES_FOR_LOOP = 200


class EqualTest(harness.ToolTest):

    def ask(self, image, *args):
        """Run the reference in the folder of the corpus."""
        return self.qemu(*args, cwd=harness.Corpus.folder,
                         files=FILES_FOR_LOOP if image['name'].startswith('loop-') else None)

    def compare_status(self, image, command, args):
        """Run both; returns the exit codes, which are equal or as the page says."""
        mine = self.img(*args, cwd=harness.Corpus.folder)
        theirs = self.ask(image, *args)
        self.assertFalse(harness.crashed(mine), mine)
        expected = harness.difference(image, command) or (theirs.status, theirs.status)
        self.assertEqual((mine.status, theirs.status), expected,
                         '%s: %r\nreference: %r' % (command, mine, theirs))
        return expected

    def reference_converts(self, image):
        """The exit code of the reference, what it says, and the digest of what it makes."""
        output = self.path(image['name'] + '.theirs')
        question = ['convert', '-O', 'raw', *harness.source(image)]

        def ask():
            result = self.ask(image, *question, output)
            digest = content.sha256(output) if result.status == 0 else None
            if os.path.exists(output):
                os.unlink(output)
            return [result.status, result.err, digest]
        return harness.Corpus.answers.remembered(question, ask)

    def convert(self, image):
        """Convert with both; a file of what the reference makes, and the digest, if it does."""
        output = self.path(image['name'] + '.raw')
        args = ['convert', '-O', 'raw', *harness.source(image), output]
        mine = self.img(*args, cwd=harness.Corpus.folder)
        self.assertFalse(harness.crashed(mine), mine)
        status, err, digest = self.reference_converts(image)
        expected = harness.difference(image, 'convert') or (status, status)
        self.assertEqual((mine.status, status), expected,
                         'convert: %r\nreference: %s' % (mine, err))
        if mine.status == 0 and status == 0:
            self.assertEqual(content.sha256(output), digest, 'converted content')
        elif os.path.exists(output):
            os.unlink(output)
        if mine.status != 0 and status == 0:
            self.make(*args, cwd=harness.Corpus.folder)
        return output if status == 0 else None, digest

    def compare(self, image, raw, digest):
        """Both compare the image with its content."""
        args = ['compare', '-f', image['format'], '-F', 'raw', image['file'], raw]
        if image['opts']:
            args = ['compare', '--image-opts', image['opts'], 'driver=raw,file.filename=' + raw]
        mine = self.img(*args, cwd=harness.Corpus.folder)
        self.assertFalse(harness.crashed(mine), mine)

        def ask():
            result = self.qemu(*args, cwd=harness.Corpus.folder)
            return [result.status, result.err]
        status, err = harness.Corpus.answers.remembered(
            ['compare', *harness.source(image), digest], ask)
        expected = harness.difference(image, 'compare') or (status, status)
        self.assertEqual((mine.status, status), expected,
                         'compare: %r\nreference: %s' % (mine, err))

    def check_image(self, image):
        for command, args in READERS.items():
            self.compare_status(image, command, [*args, *harness.source(image)])
        if 'huge' in image['tags']:
            return
        raw, digest = self.convert(image)
        if raw is not None:
            self.compare(image, raw, digest)
            os.unlink(raw)

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
