import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Passwd } from '../../../src/io/passwd.ts';

it.each([
  ['at once', (passwd: Passwd) => passwd.refresh()],
  ['without waiting', (passwd: Passwd) => passwd.look()],
])(
  'reads users %s, again when the file was replaced, and keeps them while it is gone',
  async (_how, look) => {
    const directory = mkdtempSync(join(tmpdir(), 'mnal-pw-'));
    const file = join(directory, 'passwd');
    try {
      const passwd = new Passwd(file);
      expect(await look(passwd)).toBe(false);
      writeFileSync(
        file,
        'root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nbad\n:x:3\n+nis\nodd:x:1x:0\n',
      );
      expect(await look(passwd)).toBe(true);
      expect(await look(passwd)).toBe(false);
      expect([passwd.uidOf('root'), passwd.uidOf('toor'), passwd.uidOf('odd'), passwd.uidOf('')]).toEqual([
        0,
        0,
        undefined,
        undefined,
      ]);
      expect([passwd.nameOf(0), passwd.nameOf(1)]).toEqual(['root', undefined]);
      writeFileSync(`${file}.new`, 'backup:x:34:34::/var/backups:/bin/sh\n');
      renameSync(`${file}.new`, file);
      expect(await look(passwd)).toBe(true);
      expect([passwd.uidOf('backup'), passwd.uidOf('root'), passwd.nameOf(34)]).toEqual([
        34,
        undefined,
        'backup',
      ]);
      rmSync(file);
      expect(await look(passwd)).toBe(false);
      expect(passwd.uidOf('backup')).toBe(34);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);
