import { X509Certificate } from 'node:crypto';
import { hostname } from 'node:os';
import { NodeCredentials, readCredentials } from '../../identity/node-credentials.ts';
import { parseNodeName } from '../../model/service.ts';
import { durationText } from '../table.ts';
import { type Check, fail, ok, warn } from './check.ts';

/** Part of a certificate's life that should be left: they are to be renewed at two thirds. */
const LEAST_LEFT = 1 / 3;

/** The three files are there, fit each other and this node, and have life left. */
export const certificates: Check = {
  name: 'certificates',
  run: async ({ config: { identity, node } }) => {
    const text = node.name ?? hostname().toLowerCase();
    const name = parseNodeName(text);
    if (name === undefined) return fail(`the host name ${text} is no node name`, 'set node.name');
    const issue = `mesh-node ca issue ${name} --call-as … --host …`;
    try {
      const texts = await readCredentials(identity);
      new NodeCredentials(texts, { trustDomain: identity.trustDomain, node: name });
      const certificate = new X509Certificate(texts.cert);
      const from = Date.parse(certificate.validFrom);
      const left = Date.parse(certificate.validTo) - Date.now();
      const detail = `certificate of ${name}, ends in ${durationText(left)}`;
      return left < (Date.parse(certificate.validTo) - from) * LEAST_LEFT ? warn(detail, issue) : ok(detail);
    } catch (error) {
      return fail((error as Error).message, issue);
    }
  },
};
