import { after, afterEach } from 'node:test';
import { Stage, type StageOptions } from './stage.ts';

/** A stage for one test file: services end after each test, and all of it when the file is done. */
export async function openStage(directory: string, options: StageOptions = {}): Promise<Stage> {
  const stage = await Stage.open(directory, options);
  afterEach(() => stage.stopServices());
  after(() => stage.close());
  return stage;
}
