/** Reads `host:port` or `[fd00::1]:port`, whose form the configuration checked. */
export function hostAndPort(text: string): { readonly host: string; readonly port: number } {
  const cut = text.lastIndexOf(':');
  return { host: text.slice(0, cut).replace(/^\[|\]$/g, ''), port: Number(text.slice(cut + 1)) };
}
