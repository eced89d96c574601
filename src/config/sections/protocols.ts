import { z } from 'zod';
import { duration } from '../units.ts';

/** FTP, SSH, SMTP, POP3, IMAP, submission, MySQL, NATS, VNC, IRC. */
const SERVER_FIRST = [21, 22, 25, 110, 143, 587, 3306, 4222, 5900, 6667];

/** What is done about services of which nobody has said what they speak. */
export const detection = z
  .strictObject({
    enabled: z
      .boolean()
      .default(true)
      .describe('Find out what callers of services with `protocol: auto` speak; false: carry it as it is.'),
    timeout: duration('250ms', 10)
      .refine((milliseconds) => milliseconds <= 900, 'expected at most 900ms')
      .describe('Longest time that first bytes are held which may be one protocol or another.'),
    serverFirstPorts: z
      .array(z.int().min(1).max(65535))
      .max(256)
      .default(SERVER_FIRST)
      .describe('Destination ports where the server speaks first: nothing is looked at.'),
  })
  .prefault({})
  .describe('Finding out what a connection speaks, where neither registry nor configuration says so.');

/** Services with `protocol: redis`. */
export const redis = z
  .strictObject({
    slow: duration('100ms').describe(
      'A command that takes longer is counted as slow and logged by its name, without arguments.',
    ),
  })
  .prefault({})
  .describe('Services that speak RESP, the protocol of Redis.');
