/** A command to the probe, one JSON line. */
export interface ProbeRequest {
  readonly id: number;
  readonly op: 'exchange' | 'hold' | 'release';
  readonly host: string;
  readonly port: number;
  readonly path: string;
  /** Ask for `Connection: close`. */
  readonly close?: boolean;
  /** Connections to hold. */
  readonly count?: number;
}

/** The probe's answer, one JSON line. */
export interface ProbeAnswer {
  readonly id: number;
  readonly error?: string;
  readonly status?: number;
  readonly body?: string;
  /** Length of the whole answer, head included. */
  readonly bytes?: number;
  /** The connection's address and port as the probe's own kernel knows them. */
  readonly local?: string;
  readonly count?: number;
}
