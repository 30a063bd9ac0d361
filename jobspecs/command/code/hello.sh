# The folder of code.yaml.
echo "hello from $ATHANOR_CODE"
echo "what I write goes to $ATHANOR_JOB_DIR" >"$ATHANOR_JOB_DIR/note.txt"
