// Reads an AsyncAPI document from the standard input with the parser of its authors; any remark is a failure.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const { Parser } = createRequire(process.argv[2])('@asyncapi/parser');
const { document, diagnostics } = await new Parser().parse(readFileSync(0, 'utf8'));
for (const remark of diagnostics) console.error(remark.code, remark.path.join('/'), remark.message);
if (document === undefined || diagnostics.length > 0) process.exit(1);
console.log(`${document.channels().length} channels, ${document.operations().length} operations`);
