cat part.1 app.tar > whole
p11fs decrypt swtok/pipe < piped.enc | cmp - whole
