import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './process.ts';

/** Files in PEM: an authority and one certificate of it, which both ends of a pair show. */
export interface KeyMaterial {
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
  /** Certificate and key in one file, as HAProxy wants them. */
  readonly bundle: string;
  /** The name in the certificate. */
  readonly host: string;
}

/** Makes an authority and a certificate with ECDSA P-256 keys, the kind that mesh-node issues too. */
export async function makeCertificates(directory: string): Promise<KeyMaterial> {
  const at = (name: string): string => join(directory, name);
  const host = 'proxy.bench';
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await run([
    'openssl',
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.crt'),
    '-days',
    '2',
    '-subj',
    '/CN=bench',
  ]);
  await run([
    'openssl',
    'req',
    ...newKey,
    '-keyout',
    at('proxy.key'),
    '-out',
    at('proxy.csr'),
    '-subj',
    `/CN=${host}`,
  ]);
  writeFileSync(at('proxy.ext'), `subjectAltName=DNS:${host}\nextendedKeyUsage=serverAuth,clientAuth\n`);
  const sign = [
    '-CA',
    at('ca.crt'),
    '-CAkey',
    at('ca.key'),
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    at('proxy.ext'),
  ];
  await run(['openssl', 'x509', '-req', '-in', at('proxy.csr'), ...sign, '-out', at('proxy.crt')]);
  await run([
    'sh',
    '-c',
    'cat "$1" "$2" > "$3" && chmod 644 "$2" "$3"',
    'sh',
    at('proxy.crt'),
    at('proxy.key'),
    at('proxy.pem'),
  ]);
  return {
    authority: at('ca.crt'),
    certificate: at('proxy.crt'),
    key: at('proxy.key'),
    bundle: at('proxy.pem'),
    host,
  };
}
