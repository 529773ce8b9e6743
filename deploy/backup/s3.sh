# shellcheck shell=bash
# Sourced by the scripts beside it: objects of a bucket, by curl alone. S3_URL is the bucket's address (https://s3.REGION.amazonaws.com/BUCKET,
# or that of any other that speaks S3), AWS_REGION its region; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are whose it is.

# Nothing secret on a command line, where others on the machine could read it: curl reads the login from a file.
s3() {
    printf 'user = "%s:%s"\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" |
        curl --config - --fail --silent --show-error --retry 3 --max-time 600 \
            --aws-sigv4 "aws:amz:${AWS_REGION:-us-east-1}:s3" "$@"
}

s3_put() {
    s3 --upload-file "$1" "$S3_URL/$2" >/dev/null
}

s3_get() {
    s3 --output "$2" "$S3_URL/$1"
}

# Names below a folder from a day on, in their order; a thousand at most.
s3_list() {
    s3 "$S3_URL?list-type=2&prefix=$1%2F&start-after=$1%2F$2" | grep -o '<Key>[^<]*</Key>' | sed 's/<[^>]*>//g' | sort
}
