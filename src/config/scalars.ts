import { z } from 'zod';
import { parseEndpoint, parseIp } from '../model/address.ts';
import { parseNodeName, parseServiceName } from '../model/service.ts';

/*
 * Kinds of single values that the sections of the schema are made of; those with a unit stand in units.ts.
 */

/** A TCP or UDP port. */
export const port = (fallback: number) => z.int().min(1).max(65535).default(fallback);

/** How many of something; at least one. */
export const count = (fallback: number) => z.int().min(1).max(1_000_000).default(fallback);

/** A share in percent; at least one. */
export const percent = (fallback: number) => z.int().min(1).max(100).default(fallback);

/** Path of a file or directory. */
export const absolutePath = z
  .string()
  .regex(/^\//, 'expected an absolute path')
  .meta({ title: 'absolute path' });

/** As {@link absolutePath}, with a default. */
export const path = (fallback: string) => absolutePath.default(fallback);

/** A name that `parse` of model/ accepts; `what` it is stands in messages and documentation. */
export const name = (what: string, parse: (text: string) => string | undefined) =>
  z
    .string()
    .refine((text) => parse(text) !== undefined, `expected a ${what}: lower-case letters, digits, - and .`)
    .meta({ title: what });

export const nodeName = name('node name', parseNodeName);

export const zoneName = name('zone name', parseNodeName);

export const serviceName = name('service name', parseServiceName);

/** An IPv4 or IPv6 address without port. */
export const ip = z
  .string()
  .refine((text) => parseIp(text) !== undefined, 'expected an IPv4 or IPv6 address')
  .meta({ title: 'IP address' });

/** An address with port. */
export const endpoint = z
  .string()
  .refine(
    (text) => parseEndpoint(text) !== undefined,
    'expected ADDRESS:PORT, for example 10.0.0.1:15008 or [fd00::1]:15008',
  )
  .meta({ title: 'address:port' });

/** A host name or address with port, as clients of servers write it. */
export const hostPort = z
  .string()
  .regex(
    /^(\[[0-9a-fA-F:.]{2,45}\]|[0-9A-Za-z._-]{1,253}):(?!0)\d{1,5}$/,
    'expected HOST:PORT, for example etcd1.example:2379',
  )
  .meta({ title: 'host:port' });
