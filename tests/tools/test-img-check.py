#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img check against qemu-img check."""
import json
import re

import harness


def kinds(text, image):
    """Which kinds of findings there are, in the lines on standard error."""
    words = {'leak': r'^Leaked cluster', 'error': r'^ERROR|^Can.t|corrupt'}
    if 'field' not in image['tags']:
        # Where a damaged field leads into garbage, each finds errors of its own there.
        words.update({'refcount': r'refcount=\d+ reference=\d+', 'copied': r'OFLAG_COPIED',
                      'aligned': r'aligned', 'outside': r'outside|exceeding'})
    return {kind for kind, pattern in words.items() if re.search(pattern, text, re.MULTILINE)}


class CheckTest(harness.ToolTest):

    def compare_json(self, image):
        args = ['check', '--output=json', *harness.source(image)]
        mine = self.img(*args, cwd=harness.Corpus.folder)
        theirs = self.qemu(*args, cwd=harness.Corpus.folder)
        self.assertFalse(harness.crashed(mine), mine)
        self.assertEqual(mine.status, theirs.status, '%r\nreference: %r' % (mine, theirs))
        self.assertEqual(mine.out, theirs.out)

    def test_every_sound_image_as_json(self):
        self.for_images(self.compare_json, lambda image: image['expect'] == 'ok')

    def test_every_sound_image_for_people(self):
        self.need_reference_text()

        def check(image):
            self.check_same('check', *harness.source(image), cwd=harness.Corpus.folder)
        self.for_images(check, lambda image: image['expect'] == 'ok')

    def test_damage_has_the_same_exit_code_and_kinds(self):
        def check(image):
            args = ['check', *harness.source(image)]
            mine = self.img(*args, cwd=harness.Corpus.folder)
            theirs = self.qemu(*args, cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(mine), mine)
            self.assertEqual(mine.status, theirs.status, '%r\nreference: %r' % (mine, theirs))
            self.assertEqual(kinds(mine.err, image), kinds(theirs.err, image),
                             '%r\nreference: %r' % (mine, theirs))
        self.for_images(check, lambda image: 'check' in image['tags'] or
                        image['expect'] in ('check', 'eio') and
                        not harness.difference(image, 'check'))

    def test_exit_code_is_what_the_damage_deserves(self):
        def check(image):
            result = self.img('check', *harness.source(image), cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(result), result)
            self.assertEqual(result.status, image['check_status'], result)
        self.for_images(check, lambda image: image['check_status'] is not None)

    def test_any_damage_ends_in_order(self):
        def check(image):
            result = self.img('check', '--output=json', *harness.source(image),
                              cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(result), result)
            self.assertIn(result.status, (0, 1, 2, 3, 63))
            if result.out:
                json.loads(result.out)
            else:
                self.assertTrue(result.err)
        self.for_images(check, lambda image: 'damaged' in image['tags'])

    def test_quiet(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        result = self.img('check', '-q', 'a.qcow2')
        self.assertEqual((result.status, result.out, result.err), (0, '', ''))

    def test_format_without_check(self):
        self.need_reference_text()
        self.write('a.raw', size=4096)
        for args in (['a.raw'], ['-q', 'a.raw'], ['--output=json', 'a.raw']):
            self.assertEqual(self.check_same('check', *args).status, 63)

    def test_wrong_usage(self):
        self.need_reference_text()
        self.write('a.raw', size=4096)
        for args in ([], ['--output=foo', 'a.raw'], ['-r', 'foo', 'a.raw'], ['missing'],
                     ['-f', 'qcow2', 'a.raw'], ['-T', 'foo', 'a.raw']):
            self.check_same('check', *args)

    def test_repair_is_refused_by_name(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        before = self.read('a.qcow2')
        result = self.img('check', '-r', 'all', 'a.qcow2')
        self.assertEqual((result.status, result.out), (1, ''))
        self.assertIn('a.qcow2', result.err)
        self.assertIn('-r all', result.err)
        self.assertEqual(self.read('a.qcow2'), before)


if __name__ == '__main__':
    harness.main()
