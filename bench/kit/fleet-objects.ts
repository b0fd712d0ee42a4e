import { configMap, deployment, namespace, service } from '../../test/kit/manifests.ts';

/**
 * `count` objects as files by name, in namespaces of fifty: a Namespace, twenty Deployments, fourteen Services, fifteen
 * ConfigMaps.
 */
export function fleetObjects(
  prefix: string,
  count: number,
): { readonly files: Record<string, string>; readonly namespaces: string[] } {
  const files: Record<string, string> = {};
  const namespaces: string[] = [];
  for (let i = 0; i < count; i++) {
    const ns = `${prefix}-${Math.floor(i / 50)}`;
    const at = i % 50;
    const name = `app-${String(at).padStart(2, '0')}`;
    if (at === 0) namespaces.push(ns);
    const text =
      at === 0
        ? namespace(ns)
        : at <= 20
          ? deployment(ns, name)
          : at <= 34
            ? service(ns, name)
            : configMap(ns, name, { key: `value ${i}`, text: 'x'.repeat(600) });
    files[`${ns}/${at === 0 ? 'ns' : name}.yaml`] = text;
  }
  return { files, namespaces };
}
