import { X509Certificate } from 'node:crypto';
import { durationText } from '../table.ts';
import { type Check, fail, ok, skip, warn } from './check.ts';

/** Certificates are for a time: a clock that is wrong ends every tunnel. */
export const clock: Check = {
  name: 'clock',
  run: async ({ config: { identity }, read }) => {
    const text = await read(identity.certificate);
    const from = text === undefined ? undefined : validFrom(text);
    if (from !== undefined && from > Date.now()) {
      return fail(
        `it is ${new Date().toISOString()} here, ${durationText(from - Date.now())} before the certificate's life begins`,
        'timedatectl set-ntp true, or issue the certificate on a machine whose clock is right',
      );
    }
    // Foreign calls are loaded when they are needed: every other command starts without them.
    const { clockSynchronised } = await import('../../io/clock.ts');
    switch (clockSynchronised()) {
      case true:
        return ok('synchronised');
      case false:
        return warn('nobody keeps it right', 'timedatectl set-ntp true, or chrony');
      default:
        return skip('the kernel does not say whether it is synchronised');
    }
  },
};

function validFrom(pem: string): number | undefined {
  try {
    return Date.parse(new X509Certificate(pem).validFrom);
  } catch {
    return undefined; // the check of the certificates says what is wrong with it
  }
}
