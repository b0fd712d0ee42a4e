import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusal } from '../../src/cluster/refusal.ts';

const answered = (message: string, status = 500) =>
  refusal(
    { status, body: { message }, warnings: [], retryAfter: undefined },
    'apply',
    'ConfigMap shop/settings',
    false,
  );

test('a webhook whose certificate the API server does not accept is a certificate problem, not an API server that is away', () => {
  const error = answered(
    'Internal error occurred: failed calling webhook "gate.countersign.dev": failed to call webhook: Post ' +
      '"https://127.0.0.1:9443/validate": tls: failed to verify certificate: x509: certificate has expired or is not yet valid',
  );
  assert.deepEqual([error.code, error.recover], ['certificate-refused', 'retry']);
  assert.match(error.hint ?? '', /does not accept the certificate/);
  const away = answered('Internal error occurred: failed calling webhook "gate.countersign.dev": connection refused');
  assert.equal(away.code, 'cluster-unreachable');
  const refused = answered('admission webhook "gate.countersign.dev" denied the request: x509 is a word', 403);
  assert.equal(refused.code, 'cluster-unreachable');
});
