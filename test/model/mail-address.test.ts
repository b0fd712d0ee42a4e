import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMailbox, parseMailServer, parseProject } from '../../src/model/index.ts';

// Each rule alone: what one of them lets through, no other refuses.
const refused = (parsed: { kind: string; why?: string }, why: RegExp, text: string) => {
  assert.equal(parsed.kind, 'refused', text);
  assert.match(parsed.why ?? '', why, text);
};

test('a mail server is a host and a port', () => {
  assert.deepEqual(parseMailServer('smtp://mail.example.com'), {
    kind: 'parsed',
    value: { host: 'mail.example.com', port: 587, secure: false },
  });
  assert.deepEqual(parseMailServer('smtps://[::1]:2465'), {
    kind: 'parsed',
    value: { host: '[::1]', port: 2465, secure: true },
  });
  for (const [text, why] of [
    ['mail.example.com', /does not begin with/],
    ['http://mail.example.com', /does not begin with/],
    ['smtp://u:p@mail.example.com', /a user or a password/],
    ['smtp://mail.example.com/x', /more than a host and a port/],
    ['smtp://mail.example.com?secure=true', /more than a host and a port/],
    ['smtp://mail.example.com#x', /more than a host and a port/],
    ['smtp://mail.example.com:0', /port/],
    ['smtp://', /host/],
  ] as const)
    refused(parseMailServer(text), why, text);
});

test('a mailbox is one plain address', () => {
  const long = 'a'.repeat(61);
  for (const text of ['people@example.com', "a.b+c_d'e@EXAMPLE.com"])
    assert.equal(parseMailbox(text).kind, 'parsed', text);
  for (const [text, why] of [
    [`${'a'.repeat(64)}@${long}.${long}.${long}.info`, /longer than 254/],
    ['@example.com', /single plain address/],
    ['people', /single plain address/],
    ['.people@example.com', /single plain address/],
    ['people.@example.com', /single plain address/],
    ['-people@example.com', /single plain address/],
    ['pe..ople@example.com', /single plain address/],
    ['people@example.com, others@example.com', /single plain address/],
    [`${'a'.repeat(65)}@example.com`, /single plain address/],
    ['people@-example.com', /not a host name/],
    ['people@[127.0.0.1]', /not a host name/],
    ['people@exa mple.com', /not a host name/],
  ] as const)
    refused(parseMailbox(text), why, text);
});

test('a project is a short path of plain names', () => {
  const part = 'a'.repeat(250);
  assert.equal(parseProject(`${part}/${part}`).kind, 'parsed');
  for (const text of [`${part}/${part}/${'a'.repeat(11)}`, 'name', 'a/', 'a/..', 'a/./b', 'a/b c'])
    refused(parseProject(text), /OWNER\/NAME/, text);
});
