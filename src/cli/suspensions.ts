const TEXTS: Readonly<Record<string, string>> = {
  'nobody-serves': 'no worker serves',
  overload: 'the agent measured that it does harm (mesh-node status)',
};

/** Why new connections go direct, for people; `disabledFile` where it is known. */
export function suspensionText(reason: string, disabledFile = 'capture.disabledFile'): string {
  if (reason === 'disabled') return `${disabledFile} is there (mesh-node bypass off)`;
  return TEXTS[reason] ?? reason;
}
