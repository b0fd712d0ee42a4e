import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configMap } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// Roles and bindings, by the account of `countersign manifests`, which may not grant what it does not have.
const PATH = 'clusters/production';
const stage = await openStage(scratch());
// The shipped rules want a second approver for changes to access.
const environment = { parameters: { rbacApprovers: 1 } };
const RBAC = 'apiVersion: rbac.authorization.k8s.io/v1';

const roleAndBinding = (ns: string, name: string, rules: string) => `${RBAC}
kind: RoleBinding
metadata: {name: ${name}, namespace: ${ns}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: ${name}}
subjects: [{kind: ServiceAccount, name: ${name}, namespace: ${ns}}]
---
${RBAC}
kind: Role
metadata: {name: ${name}, namespace: ${ns}}
rules: ${rules}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ${name}, namespace: ${ns}}
`;

test('a role and its binding come in one commit, also with their namespace', async () => {
  const name = 'roles';
  const reading = '[{apiGroups: [""], resources: [pods], verbs: [get, list]}]';
  const { fleet, service } = await stage.running(
    name,
    {},
    { environment, files: { [`${PATH}/app.yaml`]: roleAndBinding(name, 'app', reading) } },
  );
  const later = await stage.change(fleet, 'later', { [`${PATH}/later.yaml`]: roleAndBinding(name, 'later', reading) });
  await service.entry('apply.result', 'production', (e) => e.revision === later && e.outcome === 'applied');
  const path = `/apis/rbac.authorization.k8s.io/v1/namespaces/${name}/rolebindings`;
  for (const binding of ['app', 'later']) assert.equal((await stage.get(`${path}/${binding}`)).status, 200);
});

test('a binding of a role that nothing brings is refused before anything is written', async () => {
  const name = 'no-role';
  const { fleet, service } = await stage.running(name, {}, { environment });
  const [binding = ''] = roleAndBinding(name, 'app', '[]').split('---\n');
  const commit = await stage.change(fleet, 'binding', {
    [`${PATH}/binding.yaml`]: binding,
    [`${PATH}/other.yaml`]: configMap(name, 'other', {}),
  });
  const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === commit);
  assert.match(entry.error, /binding\.yaml:1: cannot dry-run RoleBinding .*"app" not found/);
  assert.equal(await stage.dataOf(name, 'other'), undefined);
});

test('a role with rights that the account does not have is refused with the way out, and leaves nothing', async () => {
  const name = 'too-much';
  const { fleet, service } = await stage.running(name, {}, { environment });
  const all = '[{apiGroups: [policy], resources: [podsecuritypolicies], verbs: [use]}]';
  const commit = await stage.change(fleet, 'all', { [`${PATH}/all.yaml`]: roleAndBinding(name, 'all', all) });
  const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === commit);
  assert.match(entry.error, /attempting to grant RBAC permissions not currently held/);
  await service.says('countersign manifests --grant-roles');
  assert.equal((await stage.get(`/api/v1/namespaces/${name}/serviceaccounts/all`)).status, 404);
});

test('`manifests --grant-roles` adds the two rights, and nothing gives them without it', async () => {
  const rightsOf = async (...more: string[]) => {
    const { stdout, code } = await countersign(['manifests', '--image', 'registry.example.com/countersign:1', ...more]);
    assert.equal(code, 0);
    const { items } = JSON.parse(stdout) as { items: { kind: string; rules?: { verbs: string[] }[] }[] };
    return items.flatMap(({ rules = [] }) => rules.flatMap(({ verbs }) => verbs));
  };
  const given = ['escalate', 'bind'];
  assert.deepEqual(
    (await rightsOf('--grant-roles')).filter((verb) => given.includes(verb)),
    given,
  );
  assert.deepEqual(
    (await rightsOf()).filter((verb) => [...given, '*'].includes(verb)),
    [],
  );
});
