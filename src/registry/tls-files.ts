import { readPublic, readSecret } from './secret-file.ts';

/** Files of a TLS client, as the configuration names them. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** What they hold; PEM texts. */
export interface TlsTexts {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
}

/** Reads them: for each connection, because files are renewed while we run. */
export async function readTlsFiles({ ca, cert, key }: TlsFiles): Promise<TlsTexts> {
  return {
    ca: await readPublic(ca),
    ...(cert === undefined ? {} : { cert: await readPublic(cert) }),
    ...(key === undefined ? {} : { key: await readSecret(key) }),
  };
}
