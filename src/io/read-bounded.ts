import { type FileHandle, open } from 'node:fs/promises';

/**
 * The text of a file; undefined when it cannot be read or is longer than `most` bytes. Files of /proc say that they are
 * empty, so their length is known only by reading.
 */
export async function readBounded(path: string, most: number): Promise<string | undefined> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const chunks: Buffer[] = [];
    let length = 0;
    for (;;) {
      const chunk = Buffer.allocUnsafe(Math.min(most + 1 - length, 16 << 10));
      const { bytesRead } = await file.read(chunk, 0, chunk.length);
      if (bytesRead === 0) return Buffer.concat(chunks).toString();
      chunks.push(chunk.subarray(0, bytesRead));
      length += bytesRead;
      if (length > most) return undefined;
    }
  } catch {
    return undefined;
  } finally {
    await file?.close();
  }
}
