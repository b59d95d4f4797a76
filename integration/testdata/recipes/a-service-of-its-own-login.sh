openssl dgst -sha256 -verify $O/job.pub/public.pem -signature job.sig part.1
