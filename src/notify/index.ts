/**
 * Takes events of environments and sends them to Slack, Teams, e-mail, webhooks, Alertmanager and commit statuses. Each
 * event is sent once, retried for a while, then dropped with a log line: the ledger is the record, not this.
 */

export { sendMail } from './mail.ts';
export { Notifications } from './notifications.ts';
export { readSecret, signatureHeaders } from './secret.ts';
