#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img info against qemu-img info."""
import json
import os

import harness


def without_new_members(info):
    """What a QEMU before 10.0 tells."""
    if isinstance(info, list):
        return [without_new_members(value) for value in info]
    if isinstance(info, dict):
        return {key: without_new_members(value) for key, value in info.items()
                if key not in ('children', 'detached-header')}
    return info


class InfoTest(harness.ToolTest):

    def compare_json(self, *args, cwd):
        mine = self.img('info', '--output=json', *args, cwd=cwd)
        theirs = self.qemu('info', '--output=json', *args, cwd=cwd)
        self.assertFalse(harness.crashed(mine), mine)
        if harness.crashed(theirs): # 7.2 does, on damage
            self.assertEqual(mine.status, 1, mine)
            return
        self.assertEqual(mine.status, theirs.status, '%r\nreference: %r' % (mine, theirs))
        if mine.status != 0:
            self.assertEqual(mine.out, '')
            self.assertTrue(mine.err)
        elif self.compares_text:
            self.assertEqual(mine.out, theirs.out)
        else:
            self.assertEqual(without_new_members(json.loads(mine.out)),
                             without_new_members(json.loads(theirs.out)))

    def test_every_image_as_json(self):
        self.for_images(lambda image: self.compare_json(
            *harness.source(image), cwd=harness.Corpus.folder), self.agrees)

    def test_every_image_for_people(self):
        self.need_reference_text()

        def check(image):
            self.check_same('info', *harness.source(image), cwd=harness.Corpus.folder,
                            errors=False)
        self.for_images(check, self.agrees)

    def test_every_chain(self):
        self.for_images(lambda image: self.compare_json(
            '--backing-chain', *harness.source(image), cwd=harness.Corpus.folder),
            lambda image: self.agrees(image) and 'chain' in image['tags'])

    def test_chain_for_people(self):
        self.need_reference_text()

        def check(image):
            self.check_same('info', '-b', *harness.source(image), cwd=harness.Corpus.folder,
                            errors=False)
        self.for_images(check, lambda image: self.agrees(image) and 'chain' in image['tags'])

    def test_probes_every_format(self):
        def check(image):
            self.check_same('info', image['file'], cwd=harness.Corpus.folder, errors=False)
        self.for_images(check, lambda image: image['expect'] == 'ok' and not image['opts'])

    @staticmethod
    def agrees(image):
        """Whether QEMU, too, opens or refuses it."""
        return image['expect'] != 'bounded' and not harness.difference(image, 'info') and \
            not harness.difference(image, 'info --backing-chain')

    def test_damaged_image_is_refused_with_a_reason(self):
        def check(image):
            args = ['info', *harness.source(image)]
            result = self.img(*args, cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(result), result)
            if result.status == 0:
                # It may matter only to who reads the content.
                self.assertEqual(self.qemu(*args, cwd=harness.Corpus.folder).status, 0)
                return
            self.assertEqual((result.status, result.out), (1, ''), result)
            self.assertIn(os.path.basename(image['file']), result.err)
            if image['hint']:
                self.assertRegex(result.err.lower(), image['hint'].lower())
        self.for_images(check, lambda image: image['expect'] == 'refuse')

    def test_any_damage_ends_in_order(self):
        def check(image):
            result = self.img('info', '--output=json', *harness.source(image),
                              cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(result), result)
            self.assertIn(result.status, (0, 1))
            if result.status == 0:
                json.loads(result.out)
            else:
                self.assertEqual(result.out, '')
        self.for_images(check, lambda image: image['expect'] in ('bounded', 'check', 'eio'))

    def test_odd_names(self):
        self.need_reference_text()
        for name in ('tab\tquote"back\\slash', 'é€😀', 'delete\x7f', 'brackets<>&\''):
            self.write(name, size=512)
            self.check_same('info', '--output=json', '-f', 'raw', name)
            self.check_same('info', '-f', 'raw', name)
        self.write('a:b', size=512)
        self.check_same('info', 'a:b')
        self.check_same('info', './a:b')
        self.check_same('info', 'file:a:b')

    def test_name_that_is_no_utf8(self):
        self.need_reference_text()
        name = 'bad\udcff'
        self.write(name, size=512)
        self.check_same('info', '--output=json', '-f', 'raw', name)

    def test_ways_to_name_an_image(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        self.need_reference_text()
        nested = {'driver': 'qcow2', 'file': {'driver': 'file', 'filename': 'a.qcow2'}}
        for args in (['--image-opts', 'driver=qcow2,file.driver=file,file.filename=a.qcow2'],
                     ['--image-opts', 'file.filename=a.qcow2,driver=qcow2'],
                     ['json:' + json.dumps(nested)],
                     ['json:{"file":{"driver":"file","filename":"a.qcow2"}}'],
                     ['json:{"driver":"qcow2","file.driver":"file","file.filename":"a.qcow2"}'],
                     ['file:a.qcow2'], [self.path('a.qcow2')], ['-f', 'raw', 'a.qcow2'],
                     ['-U', 'a.qcow2'], ['a.qcow2', '--force-share'],
                     ['--image-opts', 'driver=file,filename=a.qcow2'],
                     ['--image-opts', 'driver=raw,file.filename=a.qcow2,offset=64k,size=64k'],
                     ['--image-opts', 'driver=blkdebug,image.driver=qcow2,'
                                      'image.file.filename=a.qcow2'],
                     ['null-co://'], ['blkdebug::a.qcow2']):
            for output in ('json', 'human'):
                self.check_same('info', '--output=' + output, *args)

    def test_options_that_do_not_change_what_is_read(self):
        self.make('create', '-q', '-f', 'qcow2', 'weak.qcow2', '1M')
        for option in ('l2-cache-size=1M', 'lazy-refcounts=on', 'overlap-check=all',
                       'overlap-check.template=none', 'cache-clean-interval=3',
                       'l2-cache-entry-size=4k', 'pass-discard-other=on', 'discard-no-unref=on',
                       'file.locking=off', 'file.aio=threads', 'file.aio-max-batch=4',
                       'file.aio=native', 'file.aio=native,cache.direct=on'):
            if option == 'discard-no-unref=on' and harness.reference_version() < (8, 1):
                continue  # that one does not know it
            with self.subTest(option=option):
                self.check_same('info', '--image-opts',
                                f'driver=qcow2,file.filename=weak.qcow2,{option}')

    def test_file_without_a_length(self):
        # The kernel makes up what is read from it; QEMU's message has other words.
        result = self.img('info', '-f', 'raw', '/proc/version')
        self.assertEqual(result.status, 1)
        self.assertIn("Could not get the length of '/proc/version'", result.err)

    def test_wrong_usage(self):
        self.need_reference_text()
        self.write('a.raw', size=512)
        for args in ([], ['a', 'b'], ['--output=xml', 'a.raw'], ['--nosuch', 'a.raw'],
                     ['-f', 'qcow2', '--image-opts', 'driver=raw,file.filename=a.raw'],
                     ['--object', 'foo,id=x', 'a.raw'], ['--object', 'secret,id=a', 'a.raw'],
                     ['--object', 'secret,data=abc', 'a.raw']):
            self.check_same('info', *args)

    def test_secret_is_accepted(self):
        self.write('a.raw', size=512)
        result = self.img('info', '--object', 'secret,id=s,data=abc', 'a.raw')
        self.assertEqual(result.status, 0, result)

    def test_secrets(self):
        self.need_reference_text()
        self.write('a.raw', size=512)
        self.write('key', size=32)
        for text in ('file=key', 'file=nosuch', 'file=/', 'data=x,file=key', 'data=x,foo=1',
                     'foo=1', 'data=x,format=raw', 'data=eA,format=base64',
                     'data=eA==,format=base64', 'data=!!,format=base64', 'data=x,keyid=b'):
            self.check_same('info', '--object', 'secret,id=s,' + text, 'a.raw')
        self.check_same('info', '--object', 'secret,id=s,data=x,format=foo', 'a.raw', errors=False)

    def test_backing_chain_that_is_not_to_be_followed(self):
        self.make('create', '-q', '-f', 'qcow2', 'base.qcow2', '1M')
        self.make('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2')
        for args in (['info', '--untrusted'], ['--untrusted', 'info']):
            self.assertEqual(self.img(*args, 'top.qcow2').status, 0)
            result = self.img(*args, '--backing-chain', '--output=json', 'top.qcow2')
            self.assertEqual((result.status, result.out), (1, ''))
            self.assertIn('base.qcow2', result.err)
        result = self.img('map', '--untrusted', 'top.qcow2')
        self.assertEqual((result.status, result.out), (1, ''))
        self.assertIn('base.qcow2', result.err)


if __name__ == '__main__':
    harness.main()
