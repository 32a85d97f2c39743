#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img check against qemu-img check."""
import json
import os
import re
import shutil
import struct

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

    def repair_both(self, image, mode, *options):
        """Repair a copy with each of the two; the results, and each one's opinion of ours."""
        source = os.path.join(harness.Corpus.folder, image['file'])
        results = []
        for tool in (self.img, self.qemu):
            for name in ('data-file.data', 'backing-base.qcow2'):
                shutil.copy(os.path.join(harness.IMAGES, '..', 'fixtures', name), self.path(name))
            shutil.copy(source, self.path('copy.qcow2'))
            results.append(tool('check', '-r', mode, *options, 'copy.qcow2'))
            if tool == self.img:
                for check in (self.img, self.qemu):
                    results.append(check('check', 'copy.qcow2'))
        return results

    def compare_repair(self, image, mode):
        mine, again, reference, theirs = self.repair_both(image, mode, '--output=json')
        self.assertFalse(harness.crashed(mine), mine)
        self.assertIn(mine.status, (0, 1, 2, 3), mine)
        # Where QEMU fails on its own overlap checks, or finds no end, ours may repair.
        self.assertTrue(mine.status == theirs.status or mine.status == 0 or theirs.status == 1,
                        '%r\nreference: %r' % (mine, theirs))
        if mine.status == 0:
            self.assertEqual((again.status, reference.status), (0, 0), '%r%r' % (again, reference))

    def test_repaired_damage_is_clean_for_both(self):
        def repairable(image):
            # QEMU makes the file as long as a stray refcount block says.
            return image['format'] == 'qcow2' and 'field' in image['tags'] and \
                image['expect'] in ('check', 'eio') and 'beyond-end' not in image['name'] and \
                'largest' not in image['name']
        for mode in ('leaks', 'all'):
            for image in harness.Corpus.load():
                if repairable(image):
                    with self.subTest(image['name'], mode=mode):
                        self.compare_repair(image, mode)

    def test_report_of_repair(self):
        self.need_reference_text()
        for place, value in ((0, 0), (0, 8), (8, 0)):
            self.fixture_with_entry(place, value)
            before = self.read('a.qcow2')
            for args in (['leaks'], ['all'], ['leaks', '-q'], ['all', '-q'],
                         ['leaks', '--output=json'], ['all', '--output=json']):
                results = []
                for tool in (self.img, self.qemu):
                    self.write('a.qcow2', before)
                    results.append(tool('check', '-r', *args, 'a.qcow2'))
                self.assertEqual(repr(results[0]), repr(results[1]))

    def test_repair_of_what_is_sound_changes_nothing(self):
        self.fixture_with_entry(None, None)
        before = self.read('a.qcow2')
        for mode in ('leaks', 'all'):
            result = self.img('check', '-q', '-r', mode, 'a.qcow2')
            self.assertEqual((result.status, result.out, result.err), (0, '', ''))
            self.assertEqual(self.read('a.qcow2'), before)

    def fixture_with_entry(self, place, value):
        """A copy of a fixture; L2 entry at byte `place` set, or copied from byte `value`."""
        with open(os.path.join(harness.IMAGES, '..', 'fixtures', 'v3.qcow2'), 'rb') as file:
            data = bytearray(file.read())
        if place is not None:
            l1_table, = struct.unpack_from('>Q', data, 40)
            l2_table = struct.unpack_from('>Q', data, l1_table)[0] & 0x00fffffffffffe00
            entry = data[l2_table + value:l2_table + value + 8] if value else bytes(8)
            data[l2_table + place:l2_table + place + 8] = entry
        self.write('a.qcow2', bytes(data))


if __name__ == '__main__':
    harness.main()
